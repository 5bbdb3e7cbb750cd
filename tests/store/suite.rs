//! What every back end does, whatever it is made of: one suite, run on each.

use strowger::config::{CallCenter, Config, DbUrl, Setting};
use strowger::store::names::Names;
use strowger::store::{
    CallStore, CdrStore, Cell, Missing, OngoingCall, Provisioning, StoreError, calls_at, cdrs_at, provisioning_at,
};
use strowger_engine::CdrRow;
use strowger_engine::control::CallId;
use strowger_engine::registry::{AgentRow, FlowRow, Table};

/// Runs everything; `fresh` makes an empty database (keyspace) and tells its URL.
pub async fn suite(fresh: impl AsyncFn() -> String) {
    provisioning(&fresh().await).await;
    renamed(&fresh().await).await;
    records(&fresh().await).await;
    long_and_odd(&fresh().await).await;
    pages(&fresh().await).await;
    calls(&fresh().await).await;
    nothing_there(&fresh().await).await;
}

pub fn url(text: &str) -> DbUrl {
    text.parse().unwrap()
}

pub async fn provisioned(at: &str, names: &Names) -> Box<dyn Provisioning> {
    provisioning_at(&url(at), names.clone(), Missing::Create).await.unwrap_or_else(|e| panic!("{e}"))
}

pub async fn cdrs(at: &str) -> Box<dyn CdrStore> {
    cdrs_at(&url(at), Missing::Create).await.unwrap_or_else(|e| panic!("{e}"))
}

pub async fn ongoing(at: &str) -> Box<dyn CallStore> {
    calls_at(&url(at), Missing::Create).await.unwrap_or_else(|e| panic!("{e}"))
}

pub fn own_names() -> Names {
    Names::of(&CallCenter::default())
}

/// Names as keys of `[call_center]` change them.
pub fn names(settings: &[(&str, &str)]) -> Names {
    let set = |(key, name): &(&str, &str)| Setting::parse(&format!("call_center.{key}={name}")).unwrap();
    let settings: Vec<Setting> = settings.iter().map(set).collect();
    Names::of(&Config::from_text("", "", &settings).unwrap().config.call_center)
}

fn text(t: &str) -> Cell {
    Cell::Text(t.to_owned())
}

fn some(t: &str) -> Option<String> {
    Some(t.to_owned())
}

/// Rows are added, changed column by column, read, removed; again when opened anew.
async fn provisioning(at: &str) {
    let p = provisioned(at, &own_names()).await;
    let cells = [("skill", text("en")), ("message_queue", text("sip:m@h")), ("prependcid", Cell::Null)];
    assert!(p.set(Table::Flows, "sales", &cells).await.unwrap(), "a new row is added");
    assert!(
        !p.set(Table::Flows, "sales", &[("priority", Cell::Int(3))]).await.unwrap(),
        "one that is there is changed"
    );
    assert!(!p.set(Table::Flows, "sales", &[]).await.unwrap(), "nothing to change is no reason to add");
    assert!(p.set(Table::Flows, "Sales", &cells).await.unwrap(), "ids differ by case");
    assert!(
        p.set(Table::Agents, "ann", &[("location", text("sip:\u{17b}\u{f3}\u{142}w@h")), ("skills", text("en,de"))])
            .await
            .unwrap()
    );
    p.save_wrapups(&[("ann".into(), 1_795_000_000), ("ghost".into(), 5)]).await.unwrap();
    drop(p);
    let p = provisioned(at, &own_names()).await;
    let found = p.load().await.unwrap();
    assert_eq!(found.faults, []);
    let mut flows = found.rows.flows;
    flows.sort_by(|a, b| b.flowid.cmp(&a.flowid));
    assert_eq!(flows.len(), 2);
    let expected = FlowRow {
        flowid: some("sales"),
        priority: Some(3),
        skill: some("en"),
        max_wrapup_time: Some(0),
        dissuading_hangup: Some(0),
        dissuading_onhold_th: Some(0),
        dissuading_ewt_th: Some(0),
        dissuading_qsize_th: Some(0),
        message_queue: some("sip:m@h"),
        ..FlowRow::default()
    };
    assert_eq!(flows[0], expected);
    assert_eq!(flows[1].priority, Some(256), "the default of a new row");
    let expected = AgentRow {
        agentid: some("ann"),
        location: some("sip:\u{17b}\u{f3}\u{142}w@h"),
        msrp_max_sessions: Some(4),
        skills: some("en,de"),
        logstate: Some(0),
        wrapup_time: Some(0),
        wrapup_end_time: Some(1_795_000_000),
        ..AgentRow::default()
    };
    assert_eq!(found.rows.agents, [expected], "no row is made for an agent that is not there");
    assert!(!p.remove(Table::Flows, "SALES").await.unwrap(), "ids differ by case");
    assert!(p.remove(Table::Flows, "sales").await.unwrap());
    assert!(!p.remove(Table::Flows, "sales").await.unwrap());
    assert!(p.set(Table::Agents, "ann", &[("location", Cell::Null), ("wrapup_time", Cell::Int(0))]).await.is_ok());
    let rows = p.load().await.unwrap().rows;
    assert_eq!((rows.flows.len(), rows.agents[0].location.as_deref()), (1, None));
}

/// Names of the keys reach every statement, words of the language and mixed case among them.
async fn renamed(at: &str) {
    let names = names(&[
        ("cc_flows_table", "Queues"),
        ("ccf_flowid_column", "Order"),
        ("ccf_skill_column", "group"),
        ("ccf_m_queue_column", "select"),
        ("cc_agents_table", "user_table"),
        ("cca_agentid_column", "AgentId"),
        ("cca_wrapupend_column", "end"),
    ]);
    let p = provisioned(at, &names).await;
    let cells = [("skill", text("en")), ("message_queue", text("sip:m@h"))];
    assert!(p.set(Table::Flows, "f", &cells).await.unwrap());
    assert!(p.set(Table::Agents, "a", &[("location", text("sip:a@h")), ("skills", text("en"))]).await.unwrap());
    p.save_wrapups(&[("a".into(), 7)]).await.unwrap();
    drop(p);
    let p = provisioned(at, &names).await;
    let rows = p.load().await.unwrap().rows;
    assert_eq!((rows.flows[0].flowid.as_deref(), rows.flows[0].skill.as_deref()), (Some("f"), Some("en")));
    assert_eq!((rows.agents[0].agentid.as_deref(), rows.agents[0].wrapup_end_time), (Some("a"), Some(7)));
    assert!(p.remove(Table::Flows, "f").await.unwrap() && p.remove(Table::Agents, "a").await.unwrap());
}

/// A record, all of whose values a database keeps.
pub fn cdr(key: u128) -> CdrRow {
    CdrRow {
        key,
        call: CallId { shard: 1, slot: 2, generation: 3 },
        sip_call_id: format!("{key}@host").into(),
        caller: "\u{17b}\u{f3}\u{142}w".into(),
        received_unix_us: 1_795_000_000_500_000 + u64::try_from(key % 1_000_000).unwrap() * 1000,
        wait_us: 1_501_000,
        pickup_us: 499_000,
        talk_us: 9_700_000,
        talk_s: 10,
        flow_id: "sales".into(),
        agent_id: Some("ann".into()),
        call_type: 0,
        rejected: 1,
        fstats: 7,
        cid: 42,
        media: 1,
        cause: 486,
        param: Some("order 5".into()),
    }
}

pub async fn everything(c: &dyn CdrStore) -> Vec<CdrRow> {
    let (mut rows, mut at) = (vec![], None);
    loop {
        let page = c.read(at.as_deref(), 100).await.unwrap();
        rows.extend(page.rows);
        match page.next {
            Some(next) => at = Some(next),
            None => return rows,
        }
    }
}

/// One row for each key, however often it is written, in whatever batches; as it was written.
async fn records(at: &str) {
    let c = cdrs(at).await;
    let all: Vec<CdrRow> = (1..=600).map(cdr).collect();
    c.write(&all[..200]).await.unwrap();
    c.write(&all[100..]).await.unwrap();
    c.write(&all).await.unwrap();
    c.write(&[all[0].clone(), cdr(1000), cdr(1000)]).await.unwrap();
    c.write(&[]).await.unwrap();
    let types = [(-2, 3_u8), (-1, 1), (0, 7), (1, 9)].map(|(call_type, fstats)| {
        let key = u128::from(fstats) << 90;
        CdrRow { call_type, fstats, agent_id: None, param: None, talk_s: 0, talk_us: 0, ..cdr(key) }
    });
    c.write(&types).await.unwrap();
    drop(c);
    let c = cdrs(at).await;
    assert_eq!(c.count().await.unwrap(), 605);
    let mut found = everything(&*c).await;
    found.sort_by_key(|r| r.key);
    let mut expected = [all, vec![cdr(1000)], types.to_vec()].concat();
    expected.sort_by_key(|r| r.key);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
}

/// Texts longer than OpenSIPS' columns, numbers larger, letters from everywhere: written, and kept whole where they are ours.
async fn long_and_odd(at: &str) {
    let c = cdrs(at).await;
    let long = "\u{1f9e1}\u{17b}".repeat(200);
    let odd = CdrRow {
        caller: long.as_str().into(),
        sip_call_id: long.as_str().into(),
        param: Some(long.as_str().into()),
        wait_us: 3_600_000_000_000_000,
        ..cdr(u128::MAX)
    };
    let quoted =
        CdrRow { caller: "o'hara\"`\\?$1;--".into(), agent_id: Some("%_'".into()), param: Some("".into()), ..cdr(5) };
    assert_eq!(c.write(&[odd.clone(), quoted.clone()]).await.map_err(|e| e.to_string()), Ok(2));
    let mut found = everything(&*c).await;
    found.sort_by_key(|r| std::cmp::Reverse(r.key));
    assert_eq!(found, [odd, quoted]);
}

/// Pages meet every record once; a place finds what was written after it.
async fn pages(at: &str) {
    let c = cdrs(at).await;
    assert_eq!(c.read(None, 10).await.unwrap().rows, []);
    let all: Vec<CdrRow> = (1..=250).map(cdr).collect();
    for batch in all.chunks(60) {
        c.write(batch).await.unwrap();
    }
    let (mut keys, mut at, mut last) = (vec![], None, None);
    loop {
        let page = c.read(at.as_deref(), 40).await.unwrap();
        keys.extend(page.rows.iter().map(|r| r.key));
        match page.next {
            Some(next) => (last, at) = (Some(next.clone()), Some(next)),
            None => break,
        }
    }
    keys.sort_unstable();
    assert_eq!(keys, (1..=250).collect::<Vec<u128>>());
    c.write(&[cdr(251)]).await.unwrap();
    let later = c.read(last.as_deref(), 40).await.unwrap();
    assert_eq!(later.rows.iter().map(|r| r.key).collect::<Vec<_>>(), [251]);
    assert!(matches!(c.read(Some("nowhere at all"), 1).await, Err(StoreError::Refused(_))));
}

fn call(n: u32) -> OngoingCall {
    OngoingCall {
        id: format!("0.{n}.1").into(),
        state: 5,
        media: 1,
        rejections: n,
        received_unix_s: 1_795_000_000,
        last_start_unix_s: 1_795_000_060,
        setup_s: 4,
        estimated_wait_s: u32::MAX.into(),
        caller_display: "Carl \u{17b}".into(),
        caller_user: "carl".into(),
        flow_id: "sales".into(),
        agent_id: "".into(),
        param: "p".repeat(n as usize).into(),
        records: (0..n).map(|i| (i * 7) as u8).collect(),
    }
}

/// Calls are added, replaced, removed, in one step; loaded as they were saved last.
async fn calls(at: &str) {
    let s = ongoing(at).await;
    let mut all: Vec<OngoingCall> = (0..150).map(call).collect();
    s.save(&all, &[]).await.unwrap();
    let sorted = |mut calls: Vec<OngoingCall>| {
        calls.sort_by_key(|c| c.rejections);
        calls
    };
    assert_eq!(sorted(s.load().await.unwrap()), all);
    assert_eq!(s.ids().await.unwrap().len(), all.len());
    for c in &mut all[..100] {
        (c.state, c.agent_id, c.records) = (3, "ann".into(), [0, 255, 39, 92].into());
    }
    let newer = call(200);
    let (over, kept): (Vec<OngoingCall>, Vec<OngoingCall>) = all.iter().cloned().partition(|c| c.rejections % 3 == 0);
    let over: Vec<Box<str>> = over.into_iter().map(|c| c.id).chain(["never.was".into()]).collect();
    let mut saved = all[..100].to_vec();
    saved.push(OngoingCall { state: 1, ..newer.clone() });
    saved.push(newer.clone());
    s.save(&saved, &over).await.unwrap();
    let expected: Vec<OngoingCall> = kept.into_iter().chain([newer]).collect();
    drop(s);
    let s = ongoing(at).await;
    assert_eq!(sorted(s.load().await.unwrap()), expected);
    let ids: Vec<Box<str>> = expected.iter().map(|c| c.id.clone()).collect();
    let told = |mut ids: Vec<Box<str>>| {
        ids.sort();
        ids
    };
    assert_eq!(told(s.ids().await.unwrap()), told(ids.clone()));
    s.save(&[], &ids).await.unwrap();
    assert_eq!(s.load().await.unwrap(), []);
}

/// Who only looks makes nothing.
async fn nothing_there(at: &str) {
    for _ in 0..2 {
        let missing = |e: Option<StoreError>| assert!(matches!(e, Some(StoreError::Missing { .. })), "{e:?}");
        missing(provisioning_at(&url(at), own_names(), Missing::Tell).await.err());
        missing(cdrs_at(&url(at), Missing::Tell).await.err());
        missing(calls_at(&url(at), Missing::Tell).await.err());
    }
    drop((provisioned(at, &own_names()).await, cdrs(at).await, ongoing(at).await));
    assert!(provisioning_at(&url(at), own_names(), Missing::Tell).await.is_ok());
    assert!(cdrs_at(&url(at), Missing::Tell).await.is_ok() && calls_at(&url(at), Missing::Tell).await.is_ok());
}
