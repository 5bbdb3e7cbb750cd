//! `[[rules]]`: from the file to what the engines take.

use super::Config;
use super::schema::{Rule as Written, Section};
use strowger_engine::Rules;
use strowger_engine::rules::{ActionDef, Rule, RuleDef};

/// Keys that belong to one action.
const OF_ACTION: [(&str, &[&str]); 3] =
    [("handle_call", &["flow", "param"]), ("agent_login", &["agent", "state"]), ("reject", &["code", "reason"])];

/// Names of the manuals' functions.
const FUNCTIONS: [(&str, &str); 2] = [("cc_handle_call", "handle_call"), ("cc_agent_login", "agent_login")];

impl Config {
    /// The routing rules. All of them compile: the file has been read.
    #[must_use]
    pub fn routing_rules(&self) -> Rules {
        Rules::new(self.rules.iter().filter_map(|r| Rule::new(&r.def()?).ok()).collect())
    }
}

impl Written {
    /// As the engine takes it; `None` for an action that is not known.
    fn def(&self) -> Option<RuleDef> {
        let action = match self.action.as_str() {
            "handle_call" => ActionDef::HandleCall { flow: self.flow.clone(), param: self.param.clone() },
            "agent_login" => ActionDef::AgentLogin { agent: self.agent.clone(), state: self.state.0.clone() },
            "reject" => ActionDef::Reject { code: self.code.u16(), reason: self.reason.clone() },
            _ => return None,
        };
        Some(RuleDef {
            name: self.name.clone(),
            method: self.method.clone(),
            ruri_user: self.ruri_user.clone(),
            ruri_host: self.ruri_host.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            header: self.header.clone(),
            source: self.source.clone(),
            action,
            on_failure: self.on_failure.clone(),
        })
    }

    /// Takes an action under the name of a function of the manuals; which it is, if it is one.
    pub(super) fn take_function(&mut self) -> Option<&'static str> {
        let action = FUNCTIONS.iter().find(|(function, _)| *function == self.action).map(|(_, action)| *action)?;
        self.action = action.to_owned();
        Some(action)
    }

    /// What is wrong with a rule in which the keys of `given` were written: each key and what to do.
    pub(super) fn faults(&self, given: &[&str]) -> Vec<(&'static str, String)> {
        let Some(def) = self.def() else {
            let names = OF_ACTION.map(|(action, _)| format!("\"{action}\"")).join(" or ");
            return vec![("action", format!("`{}` is not known here, expected {names}", self.action))];
        };
        let mut out = vec![];
        for (action, keys) in OF_ACTION.iter().filter(|(action, _)| *action != self.action) {
            for key in keys.iter().filter(|k| given.contains(k)) {
                out.push((
                    *key,
                    format!("means nothing to `{}`; remove it, or write action = \"{action}\"", self.action),
                ));
            }
        }
        if let Err(faults) = Rule::new(&def) {
            out.extend(faults.into_iter().map(|f| (f.key, f.what)));
        }
        debug_assert!(out.iter().all(|(key, _)| Written::KEYS.iter().any(|k| k.name == *key)));
        out
    }
}
