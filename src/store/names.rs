//! What the tables and columns of a provisioning database are called (the `cc_*_table`, `cca_*` and `ccf_*` keys).

use crate::config::CallCenter;
use strowger_engine::registry::{RowFault, Table};

/// A column: its name in data.md, the key that renames it (empty: none), its name in this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub canonical: &'static str,
    pub key: &'static str,
    pub name: String,
}

/// Names of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub flows: String,
    pub agents: String,
    pub flow_columns: Vec<Column>,
    pub agent_columns: Vec<Column>,
}

impl Names {
    /// As the configuration has them.
    #[must_use]
    pub fn of(c: &CallCenter) -> Names {
        let column =
            |canonical, key, name: &crate::config::Ident| Column { canonical, key, name: name.as_str().to_owned() };
        Names {
            flows: c.cc_flows_table.as_str().to_owned(),
            agents: c.cc_agents_table.as_str().to_owned(),
            flow_columns: vec![
                column("flowid", "ccf_flowid_column", &c.ccf_flowid_column),
                column("priority", "ccf_priority_column", &c.ccf_priority_column),
                column("skill", "ccf_skill_column", &c.ccf_skill_column),
                column("prependcid", "ccf_cid_column", &c.ccf_cid_column),
                column("max_wrapup_time", "ccf_max_wrapup_column", &c.ccf_max_wrapup_column),
                column("dissuading_hangup", "ccf_dissuading_hangup_column", &c.ccf_dissuading_hangup_column),
                column("dissuading_onhold_th", "ccf_dissuading_onhold_th_column", &c.ccf_dissuading_onhold_th_column),
                column("dissuading_ewt_th", "ccf_dissuading_ewt_th_column", &c.ccf_dissuading_ewt_th_column),
                column("dissuading_qsize_th", "ccf_dissuading_qsize_th_column", &c.ccf_dissuading_qsize_th_column),
                column("message_welcome", "ccf_m_welcome_column", &c.ccf_m_welcome_column),
                column("message_queue", "ccf_m_queue_column", &c.ccf_m_queue_column),
                column("message_dissuading", "ccf_m_dissuading_column", &c.ccf_m_dissuading_column),
                column("message_flow_id", "ccf_m_flow_id_column", &c.ccf_m_flow_id_column),
            ],
            agent_columns: vec![
                column("agentid", "cca_agentid_column", &c.cca_agentid_column),
                column("location", "cca_location_column", &c.cca_location_column),
                column("logstate", "cca_logstate_column", &c.cca_logstate_column),
                column("msrp_location", "cca_msrp_location_column", &c.cca_msrp_location_column),
                column("msrp_max_sessions", "cca_msrp_max_sessions_column", &c.cca_msrp_max_sessions_column),
                column("skills", "cca_skills_column", &c.cca_skills_column),
                column("wrapup_end_time", "cca_wrapupend_column", &c.cca_wrapupend_column),
                column("wrapup_time", "cca_wrapuptime_column", &c.cca_wrapuptime_column),
            ],
        }
    }

    /// The table and its columns.
    #[must_use]
    pub fn table(&self, table: Table) -> (&str, &[Column]) {
        match table {
            Table::Flows => (&self.flows, &self.flow_columns),
            Table::Agents => (&self.agents, &self.agent_columns),
        }
    }

    /// What a column is called here.
    #[must_use]
    pub fn column(&self, table: Table, canonical: &str) -> Option<&str> {
        self.table(table).1.iter().find(|c| c.canonical == canonical).map(|c| c.name.as_str())
    }

    /// A fault in the database's own words.
    #[must_use]
    pub fn tell(&self, fault: &RowFault) -> String {
        let table = self.table(fault.table).0;
        let column = self.column(fault.table, fault.column).unwrap_or(fault.column);
        format!("{table} `{}`: {column}: {}; {}", fault.row, fault.what, fault.fix)
    }
}
