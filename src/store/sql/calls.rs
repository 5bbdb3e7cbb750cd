//! Ongoing calls: `cc_calls` as OpenSIPS has it, and beside it `strowger_calls` with the records that a restart needs
//! and what `cc_calls` cuts. Rows of a call are changed in place: the ids of long-lived tables are not used up.

use super::super::{CallStore, Missing, OngoingCall, StoreError, Task};
use super::dialect::{Arg, Type};
use super::rows::word;
use super::schema::{Form, Found, Table, Wanted};
use super::session::{Cells, Mode, Session, Sql};
use super::shapes::shaped;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a write waits for the one before it.
const TURN: Duration = Duration::from_secs(10);

const COLUMNS: [(&str, Type, &str); 14] = [
    ("state", Type::Int, "NOT NULL"),
    ("media", Type::Int, "DEFAULT 0 NOT NULL"),
    ("ig_cback", Type::Int, "NOT NULL"),
    ("no_rej", Type::Int, "NOT NULL"),
    ("setup_time", Type::Int, "NOT NULL"),
    ("eta", Type::Int, "NOT NULL"),
    ("last_start", Type::Int, "NOT NULL"),
    ("recv_time", Type::Int, "NOT NULL"),
    ("caller_dn", Type::Text(128), "NOT NULL"),
    ("caller_un", Type::Text(128), "NOT NULL"),
    ("b2buaid", Type::Text(128), "DEFAULT '' NOT NULL"),
    ("flow", Type::Text(128), "NOT NULL"),
    ("agent", Type::Text(128), "NOT NULL"),
    ("script_param", Type::Text(128), "NOT NULL"),
];

/// The place of `b2buaid` there, and in [`OURS`].
const ID: usize = 10;
const OUR_ID: usize = 0;

/// Whole values of what `cc_calls` may cut, in the order that it has them.
const OURS: [(&str, Type, &str); 11] = [
    ("b2buaid", Type::Text(128), "NOT NULL"),
    ("setup_s", Type::BigInt, "NOT NULL"),
    ("estimated_wait_s", Type::BigInt, "NOT NULL"),
    ("last_start_unix_s", Type::BigInt, "NOT NULL"),
    ("received_unix_s", Type::BigInt, "NOT NULL"),
    ("caller_display", Type::LongText, "NOT NULL"),
    ("caller_user", Type::LongText, "NOT NULL"),
    ("flow_id", Type::LongText, "NOT NULL"),
    ("agent_id", Type::LongText, "NOT NULL"),
    ("param", Type::LongText, "NOT NULL"),
    ("records", Type::Bytes, "NOT NULL"),
];

/// Ongoing calls in an SQL database.
pub struct SqlCalls {
    db: Sql,
    calls: Found,
    ours: Found,
    turn: Semaphore,
}

impl SqlCalls {
    pub async fn open(db: Sql, missing: Missing) -> Result<SqlCalls, StoreError> {
        let table = |name, form, columns: &[(&'static str, Type, &'static str)]| Table {
            name,
            form,
            columns: columns.iter().map(|&(name, kind, rule)| Wanted { name, key: "", kind, rule }).collect(),
        };
        let versioned = Form::Versioned { version: 3, unique: Some("b2buaid") };
        let calls = db.ensure(&table("cc_calls", versioned, &COLUMNS), missing).await?;
        let keyed = Form::Ours { key: "b2buaid", index: None };
        let ours = db.ensure(&table("strowger_calls", keyed, &OURS), missing).await?;
        Ok(SqlCalls { db, calls, ours, turn: Semaphore::new(1) })
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        match tokio::time::timeout(TURN, self.turn.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(StoreError::Failed(format!("{}: the calls before these are not written yet", self.db.url))),
        }
    }

    async fn write(&self, s: &mut Session<'_>, calls: &[&OngoingCall], over: &[Box<str>]) -> Result<(), StoreError> {
        for part in shaped(calls) {
            let ids = self.ids(s, part).await?;
            let known = |c: &OngoingCall| ids.get(self.calls.cut(ID, &c.id)).copied();
            let there: Vec<(&OngoingCall, i64)> = part.iter().filter_map(|c| Some((*c, known(c)?))).collect();
            let new: Vec<&OngoingCall> = part.iter().filter(|c| known(c).is_none()).copied().collect();
            for part in shaped(&there) {
                self.change(s, part).await?;
            }
            for part in shaped(&new) {
                self.add(s, part).await?;
            }
            self.keep(s, part).await?;
        }
        for part in shaped(over) {
            for (t, id) in [(&self.calls, ID), (&self.ours, OUR_ID)] {
                let args: Vec<Arg<'_>> = part.iter().map(|over| Arg::Text(Some(t.cut(id, over)))).collect();
                let marks = vec!["?"; part.len()].join(", ");
                self.run(s, &format!("DELETE FROM {} WHERE {} IN ({marks})", t.table, t.name(id)), &args).await?;
            }
        }
        Ok(())
    }

    /// Ids of the rows that are there.
    async fn ids(&self, s: &mut Session<'_>, part: &[&OngoingCall]) -> Result<HashMap<String, i64>, StoreError> {
        let (t, d) = (&self.calls, self.db.dialect);
        let args: Vec<Arg<'_>> = part.iter().map(|c| Arg::Text(Some(t.cut(ID, &c.id)))).collect();
        let (name, marks) = (t.name(ID), vec!["?"; part.len()].join(", "));
        let select = format!("SELECT {}, {} FROM {} WHERE {name} IN ({marks})", d.text(name), d.text("id"), t.table);
        let found = s.rows(&select, &args).await?;
        Ok(found.iter().filter_map(|r| Some((word(r, 0)?, word(r, 1)?.parse().ok()?))).collect())
    }

    async fn change(&self, s: &mut Session<'_>, there: &[(&OngoingCall, i64)]) -> Result<(), StoreError> {
        let args: Vec<Arg<'_>> =
            there.iter().flat_map(|(c, id)| std::iter::once(Arg::Int(Some(*id))).chain(self.args(c))).collect();
        let upsert = self.db.dialect.upsert("id", &COLUMNS.map(|c| c.0));
        self.insert(s, &self.calls, Some("id"), there.len(), &args, &upsert).await
    }

    async fn add(&self, s: &mut Session<'_>, new: &[&OngoingCall]) -> Result<(), StoreError> {
        let args: Vec<Arg<'_>> = new.iter().flat_map(|c| self.args(c)).collect();
        self.insert(s, &self.calls, None, new.len(), &args, "").await
    }

    fn args<'c>(&self, c: &'c OngoingCall) -> [Arg<'c>; 14] {
        let t = &self.calls;
        let int = |i, n| Arg::Int(Some(t.most(i, n)));
        let text = |i, text: &'c str| Arg::Text(Some(t.cut(i, text)));
        [
            int(0, c.state.into()),
            int(1, c.media.into()),
            int(2, 0),
            int(3, c.rejections.into()),
            int(4, c.setup_s),
            int(5, c.estimated_wait_s),
            int(6, c.last_start_unix_s),
            int(7, c.received_unix_s),
            text(8, &c.caller_display),
            text(9, &c.caller_user),
            text(ID, &c.id),
            text(11, &c.flow_id),
            text(12, &c.agent_id),
            text(13, &c.param),
        ]
    }

    /// The rows of our table.
    async fn keep(&self, s: &mut Session<'_>, part: &[&OngoingCall]) -> Result<(), StoreError> {
        let t = &self.ours;
        let mut args = Vec::with_capacity(part.len() * OURS.len());
        for c in part {
            args.push(Arg::Text(Some(t.cut(OUR_ID, &c.id))));
            let numbers = [c.setup_s, c.estimated_wait_s, c.last_start_unix_s, c.received_unix_s];
            args.extend(numbers.map(|n| Arg::Int(Some(i64::try_from(n).unwrap_or(i64::MAX)))));
            let texts = [&c.caller_display, &c.caller_user, &c.flow_id, &c.agent_id, &c.param];
            args.extend(texts.map(|text| Arg::Text(Some(text))));
            args.push(Arg::Bytes(&c.records));
        }
        let upsert = self.db.dialect.upsert(OURS[OUR_ID].0, &OURS.map(|c| c.0)[1..]);
        self.insert(s, t, None, part.len(), &args, &upsert).await
    }

    async fn insert(
        &self,
        s: &mut Session<'_>,
        t: &Found,
        first: Option<&str>,
        rows: usize,
        args: &[Arg<'_>],
        end: &str,
    ) -> Result<(), StoreError> {
        if rows == 0 {
            return Ok(());
        }
        let columns: Vec<&str> = first.into_iter().chain(t.names().iter().map(String::as_str)).collect();
        let row = format!("(?{})", ", ?".repeat(columns.len() - 1));
        let values = vec![row; rows].join(", ");
        self.run(s, &format!("INSERT INTO {} ({}) VALUES {values}{end}", t.table, columns.join(", ")), args).await
    }

    async fn run(&self, s: &mut Session<'_>, sql: &str, args: &[Arg<'_>]) -> Result<(), StoreError> {
        match s.execute(sql, args).await {
            Ok(_) => Ok(()),
            // Ours from before a time limit, perhaps: changed instead of added when tried again.
            Err(e) if e.as_database_error().is_some_and(|d| d.is_unique_violation()) => {
                Err(StoreError::Failed(format!("{}: a call is just being written: {e}", self.db.url)))
            }
            Err(e) => Err(self.db.sorted(&e)),
        }
    }

    async fn names(&self, s: &mut Session<'_>) -> Result<Vec<Box<str>>, StoreError> {
        let d = self.db.dialect;
        let mut ids = vec![];
        for (t, id) in [(&self.calls, ID), (&self.ours, OUR_ID)] {
            let rows = s.rows(&format!("SELECT {} FROM {}", d.text(t.name(id)), t.table), &[]).await?;
            ids.extend(rows.iter().filter_map(|r| word(r, 0)).map(Box::<str>::from));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    async fn all(&self, s: &mut Session<'_>) -> Result<Vec<OngoingCall>, StoreError> {
        let (d, t, o) = (self.db.dialect, &self.calls, &self.ours);
        let texts = |names: &[String]| names.iter().map(|n| d.text(n)).collect::<Vec<_>>().join(", ");
        let last = OURS.len() - 1;
        let ours = format!("SELECT {}, {} FROM {}", texts(&o.names()[..last]), o.name(last), o.table);
        let ours = s.rows(&ours, &[]).await?;
        let ours: HashMap<String, &Cells> = ours.iter().filter_map(|r| Some((word(r, OUR_ID)?, r))).collect();
        let calls = s.rows(&format!("SELECT {} FROM {} ORDER BY {}", texts(t.names()), t.table, t.order), &[]).await?;
        Ok(calls.iter().map(|r| call(r, word(r, ID).and_then(|id| ours.get(&id).copied()))).collect())
    }
}

impl CallStore for SqlCalls {
    fn save<'a>(&'a self, calls: &'a [OngoingCall], over: &'a [Box<str>]) -> Task<'a, ()> {
        Box::pin(async move {
            if calls.is_empty() && over.is_empty() {
                return Ok(());
            }
            // Of two with one id, the later.
            let latest: HashMap<&str, usize> = calls.iter().enumerate().map(|(i, c)| (&*c.id, i)).collect();
            let calls: Vec<&OngoingCall> =
                calls.iter().enumerate().filter(|(i, c)| latest.get(&*c.id) == Some(i)).map(|(_, c)| c).collect();
            let _turn = self.turn().await?;
            let mut s = self.db.begin(Mode::Write).await?;
            let saved = self.write(&mut s, &calls, over).await;
            s.end(saved).await
        })
    }

    fn ids(&self) -> Task<'_, Vec<Box<str>>> {
        Box::pin(async {
            let mut s = self.db.begin(Mode::Read).await?;
            s.long();
            let ids = self.names(&mut s).await;
            s.end(ids).await
        })
    }

    fn load(&self) -> Task<'_, Vec<OngoingCall>> {
        Box::pin(async {
            let mut s = self.db.begin(Mode::Read).await?;
            s.long();
            let calls = self.all(&mut s).await;
            s.end(calls).await
        })
    }
}

/// A row of `cc_calls`, with ours where there is one.
fn call(r: &Cells, ours: Option<&Cells>) -> OngoingCall {
    let whole = |r: &Cells, i| word(r, i).and_then(|w| w.trim().parse::<u64>().ok()).unwrap_or(0);
    let number = |i, own| ours.map_or_else(|| whole(r, i), |o| whole(o, own));
    let text = |r: &Cells, i| word(r, i).unwrap_or_default().into();
    let words = |i, own| ours.map_or_else(|| text(r, i), |o| text(o, own));
    OngoingCall {
        id: text(r, ID),
        state: whole(r, 0).try_into().unwrap_or(u8::MAX),
        media: whole(r, 1).try_into().unwrap_or(u8::MAX),
        rejections: whole(r, 3).try_into().unwrap_or(u32::MAX),
        setup_s: number(4, 1),
        estimated_wait_s: number(5, 2),
        last_start_unix_s: number(6, 3),
        received_unix_s: number(7, 4),
        caller_display: words(8, 5),
        caller_user: words(9, 6),
        flow_id: words(11, 7),
        agent_id: words(12, 8),
        param: words(13, 9),
        records: ours.and_then(|o| o.last()?.clone()).unwrap_or_default().into(),
    }
}
