//! Every section and key of the configuration file, with its type, its default and its words for the example file.
//!
//! A key is declared once, here. A key marked `later` belongs to a part of the product that this build does not
//! have: it is known and typed, and setting it to something else than its default is an error that says so.

use super::db_url::DbUrl;
use super::value::{
    Advertise, FileMode, HeaderName, HttpPath, Ident, Listen, LogFormat, Offer, OnStop, Scalar, Seconds, Switch, Value,
    Whole, Word,
};
use crate::control::fronts::MiSocket;
use std::net::SocketAddr;
use std::path::PathBuf;
use strowger_dispatch::ChatPolicy;
use strowger_engine::AgentOffer;
use strowger_sip::net::Transport;
use toml::de::DeValue;

/// What is known of a key besides its value.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    /// Lines of explanation.
    pub doc: &'static str,
    /// What this build lacks for the key to mean something.
    pub later: Option<&'static str>,
}

/// A section of the file.
pub trait Section: Default {
    const NAME: &'static str;
    const DOC: &'static str;
    const KEYS: &'static [Key];
    /// Other names of keys, from either manual: (alias, key).
    const ALIASES: &'static [(&'static str, &'static str)] = &[];
    /// Sets a key of [`Section::KEYS`]; the error says what is expected.
    fn set(&mut self, key: &str, value: &DeValue<'_>) -> Result<(), String>;
    /// The value of each key, in the order of [`Section::KEYS`], as it stands in a file.
    fn show(&self) -> Vec<String>;
}

macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $name:ident = $toml:literal $(aliases $aliases:expr)?;
        $( $(#[doc = $doc:literal])* $field:ident: $ty:ty = $default:expr $(, later $later:literal)?; )*
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $( $(#[doc = $doc])* pub $field: $ty, )* }

        impl Default for $name {
            fn default() -> $name {
                $name { $( $field: $default, )* }
            }
        }

        impl Section for $name {
            const NAME: &'static str = $toml;
            const DOC: &'static str = concat!($($about, "\n",)*);
            const KEYS: &'static [Key] = &[ $( Key {
                name: stringify!($field),
                doc: concat!($($doc, "\n",)*),
                later: section!(@later $($later)?),
            }, )* ];
            $( const ALIASES: &'static [(&'static str, &'static str)] = $aliases; )?

            fn set(&mut self, key: &str, value: &DeValue<'_>) -> Result<(), String> {
                match key {
                    $( stringify!($field) => {
                        let read: $ty = Value::read(value)?;
                        let default: $ty = $default;
                        if let Some(what) = section!(@later $($later)?) && read != default {
                            return Err(format!("{what} not in this build; leave the key at its default, {}", default.show()));
                        }
                        self.$field = read;
                        Ok(())
                    } )*
                    _ => Err("unknown key".to_owned()),
                }
            }

            fn show(&self) -> Vec<String> {
                vec![ $( Value::show(&self.$field), )* ]
            }
        }
    };
    (@later) => { None::<&'static str> };
    (@later $later:literal) => { Some($later) };
}

fn ident(s: &str) -> Ident {
    // Checked by the test that loads the example file: each default is a plain name.
    s.parse().unwrap_or_else(|_| unreachable!("a default name"))
}

fn listen_default() -> Listen {
    Listen { transport: Transport::Udp, addr: SocketAddr::from(([0, 0, 0, 0], 5060)) }
}

section! {
    /// The process.
    Server = "server";
    /// Where the keys, locks and spools of this server live. Locked: one server a directory.
    data_dir: PathBuf = PathBuf::from("data");
    /// Seconds that an orderly stop (SIGTERM, SIGINT) waits for present calls to end; then, or at a second signal, it
    /// ends them.
    stop_timeout: Seconds = Seconds::new(30);
    /// What becomes of the calls at an orderly stop. "finish": they go on as stop_timeout says. "leave": they are left to the
    /// next start, which goes on with them from the journal; meanwhile nobody answers.
    on_stop: Word<OnStop> = Word(OnStop::Finish);
}

section! {
    /// SIP signalling.
    Sip = "sip";
    /// Listeners, TRANSPORT:ADDR:PORT. Port 0 takes a free one. An IPv6 address stands in brackets; [::] takes IPv6 only.
    listen: Vec<Listen> = vec![listen_default()];
    /// ADDR[:PORT] at which peers reach a listener; needed behind NAT, and when listening on a wildcard with several
    /// addresses. Empty: the listener's own address, on a wildcard the one that the default route leaves from.
    advertise: Option<Advertise> = None;
    /// First of the ports that shards send from and take answers on, one each. 0: all share the listener's port.
    shard_port_base: Whole<0, 65_535> = Whole(0);
    /// RFC 3261 timers, in milliseconds.
    t1_ms: Whole<1, 60_000> = Whole(500);
    t2_ms: Whole<1, 60_000> = Whole(4000);
    t4_ms: Whole<1, 60_000> = Whole(5000);
    /// sip:HOST[:PORT] that every request goes to instead of its Request-URI's host. Empty: none.
    outbound_proxy: String = String::new();
    /// RFC 4028 session timers: the interval that is asked for, and the least that is accepted, in seconds.
    session_expires: Whole<90, 86_400> = Whole(1800);
    min_se: Whole<90, 86_400> = Whole(90);
    /// Largest message taken, in bytes; a larger one is answered 513.
    max_message_size: Whole<512, 65_535> = Whole(65_535);
    /// Most header lines of a message; one with more is answered 400.
    max_headers: Whole<16, 96> = Whole(64);
    /// Headers that pass from the caller's INVITE to the agent's. "x-*": all that begin with X-.
    pass_headers: Vec<String> =
        ["p-asserted-identity", "privacy", "history-info", "diversion", "user-to-user", "x-*"].map(str::to_owned).to_vec();
    /// Follow a 3xx from an agent. 0: it counts as a rejection.
    follow_redirects: Switch = Switch(false);
    /// Name in the User-Agent and Server headers.
    user_agent: String = concat!("Strowger/", env!("CARGO_PKG_VERSION")).to_owned();
    /// Most requests outside calls that one source address may send a second, and at once; more are dropped. 0: no limit.
    source_rate: Whole<0, 1_000_000> = Whole(0);
    source_burst: Whole<1, 1_000_000> = Whole(100);
    /// Answer to new calls above what a shard can finish: 503, or 486 or 600 for trunks that would fail over whole routes.
    overload_code: Whole<400, 699> = Whole(503);
    /// Bounds of the Retry-After that goes with it, seconds; each answer draws its own.
    overload_retry_after_min: Whole<1, 3600> = Whole(2);
    overload_retry_after_max: Whole<1, 3600> = Whole(10);
    /// New calls whose INVITE has waited longer than this are refused as overload, in milliseconds. Half of t1_ms: a
    /// caller that is still served has not sent it twice.
    overload_max_age_ms: Whole<1, 60_000> = Whole(250);
    /// Most new calls that wait for one shard.
    overload_backlog: Whole<1, 1_048_576> = Whole(1024);
}

section! {
    /// Flows, agents and calls. The keys of the OpenSIPS module's manuals under their own names, then our own.
    CallCenter = "call_center" aliases &[("chat_internal_call_dispatching", "internal_call_dispatching")];
    /// Database of flows and agents: sqlite:PATH, scylla://HOST,HOST:9042/KEYSPACE, mysql://USER:PASSWORD@HOST/DATABASE or
    /// postgres://USER:PASSWORD@HOST/DATABASE. SQLite's file is created with its tables when it is not there.
    db_url: DbUrl = DbUrl::Sqlite(PathBuf::from("strowger.db"));
    /// Database of the CDRs. Empty: db_url.
    acc_db_url: Option<DbUrl> = None;
    /// Database of ongoing calls (cc_calls), kept from the journal; of this server alone. A start that finds no journal goes on
    /// with the calls in it. Empty: db_url.
    rt_db_url: Option<DbUrl> = None;
    /// Seconds between an agent's call and the next; an agent's own wrapup_time goes before it.
    wrapup_time: Seconds = Seconds::new(30);
    /// Name of a URI parameter that tells the music server the call's place in the queue (0 = next). Empty: none.
    queue_pos_param: String = String::new();
    /// Refuse a call when no agent of its flow's skill is logged in. 0: let it wait.
    reject_on_no_agents: Switch = Switch(true);
    /// "balancing" spreads chats over the agents, "full-load" fills one agent before the next.
    chat_dispatch_policy: Word<ChatPolicy> = Word(ChatPolicy::Balancing);
    /// 0: the server matches no calls itself; cc_dispatch_call_to_agent does. cc_internal_call_dispatching switches it.
    internal_call_dispatching: Switch = Switch(true);
    /// Accepted for old configurations: scenarios are built in.
    b2b_scenario: String = String::new();
    /// Accepted for old configurations: when it is not the default, the header of param_header is X-NAME.
    b2b_logic_ctx_param: String = "call_center".to_owned();
    /// Tables and columns of an existing database.
    cc_agents_table: Ident = ident("cc_agents");
    cca_agentid_column: Ident = ident("agentid");
    cca_location_column: Ident = ident("location");
    cca_msrp_location_column: Ident = ident("msrp_location");
    cca_msrp_max_sessions_column: Ident = ident("msrp_max_sessions");
    cca_skills_column: Ident = ident("skills");
    cca_logstate_column: Ident = ident("logstate");
    cca_wrapuptime_column: Ident = ident("wrapup_time");
    cca_wrapupend_column: Ident = ident("wrapup_end_time");
    cc_flows_table: Ident = ident("cc_flows");
    ccf_flowid_column: Ident = ident("flowid");
    ccf_priority_column: Ident = ident("priority");
    ccf_skill_column: Ident = ident("skill");
    ccf_cid_column: Ident = ident("prependcid");
    ccf_max_wrapup_column: Ident = ident("max_wrapup_time");
    ccf_dissuading_hangup_column: Ident = ident("dissuading_hangup");
    ccf_dissuading_onhold_th_column: Ident = ident("dissuading_onhold_th");
    ccf_dissuading_ewt_th_column: Ident = ident("dissuading_ewt_th");
    ccf_dissuading_qsize_th_column: Ident = ident("dissuading_qsize_th");
    ccf_m_welcome_column: Ident = ident("message_welcome");
    ccf_m_queue_column: Ident = ident("message_queue");
    ccf_m_dissuading_column: Ident = ident("message_dissuading");
    ccf_m_flow_id_column: Ident = ident("message_flow_id");
    /// Header that carries a call's opaque parameter to music servers and agents.
    param_header: HeaderName = HeaderName("X-CC-Param".to_owned());
    /// Seconds that an agent's phone may ring; then the call goes back to the queue, as after a rejection.
    agent_ring_timeout: Seconds = Seconds::new(30);
    /// An agent's hang-up within this many seconds of the answer counts as a rejection.
    min_talk_time: Seconds = Seconds::new(1);
    /// Seconds before an agent whose wrap-up is 0 is offered a call again after a rejection.
    reject_backoff: Seconds = Seconds::new(1);
    /// Log an agent out after so many misses in a row. 0: never.
    max_no_answer: Whole<0, 1000> = Whole(0);
    /// What the INVITE to an agent carries: "caller" the caller's session description, "delayed" none (RFC 3725 flow I),
    /// "auto" the caller's for plain RTP and none where an answer cannot serve as an offer.
    agent_offer: Word<Offer> = Word(AgentOffer::Auto);
    /// Seconds before music that failed is tried again for a call that waits.
    media_retry: Seconds = Seconds::new(2);
    /// Most calls at once on one shard; more are answered 503.
    max_calls: Whole<1, 10_000_000> = Whole(1_000_000);
}

section! {
    /// SIP answers to calls that are refused at arrival (return codes -1 to -7 of cc_handle_call).
    Refusals = "refusals";
    /// -1: the rules give no flow id.
    no_flow_id: Whole<400, 699> = Whole(404);
    /// -2: the From header cannot be read.
    bad_from: Whole<400, 699> = Whole(400);
    /// -3: no such flow.
    unknown_flow: Whole<400, 699> = Whole(404);
    /// -4: no agent of the flow's skill is logged in, and reject_on_no_agents is 1.
    no_agents: Whole<400, 699> = Whole(480);
    /// -5: internal error.
    internal: Whole<400, 699> = Whole(500);
    /// -6: the session description has no usable stream.
    bad_sdp: Whole<400, 699> = Whole(488);
    /// -7: the media is neither RTP nor MSRP.
    bad_media: Whole<400, 699> = Whole(488);
}

section! {
    /// Management interface, JSON-RPC 2.0.
    Mi = "mi";
    /// ADDR:PORT of the HTTP server. Whoever reaches it manages the server: keep it on loopback or behind a proxy. Empty: none.
    http: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 8888)));
    /// Its resource.
    http_path: HttpPath = HttpPath("/mi".to_owned());
    /// Largest request, in bytes.
    max_request_size: Whole<1024, 1_073_741_824> = Whole(1_048_576);
    /// Path of a FIFO that takes :reply_fifo_name:JSON requests; made at the start, removed at the stop. Empty: none.
    fifo: String = String::new();
    /// Directory of the reply FIFOs, which the clients make.
    fifo_reply_dir: PathBuf = PathBuf::from("/tmp");
    /// Datagram sockets, udp:ADDR:PORT or unix:PATH. Answers above 64 KiB need HTTP or the FIFO.
    datagram: Vec<MiSocket> = vec![];
    /// Access to the FIFO and to Unix sockets, as octal digits: whoever may write there manages the server.
    file_mode: FileMode = FileMode(0o660);
}

section! {
    /// Journal of ongoing calls, agents and statistics, from which a start goes on after a crash.
    Journal = "journal";
    /// 1: keep it. 0: a crash ends all calls without a word.
    enabled: Switch = Switch(true);
    /// Its directory. Empty: journal/ in the data directory.
    dir: String = String::new();
    /// A tmpfs where it is mapped, so that no call waits for the disk; sync_ms brings it to dir. What is there outlives a crash
    /// of the server. Where there is no tmpfs or no room, and when empty, it is mapped in dir.
    memory_dir: String = "/dev/shm".to_owned();
    /// Size of a segment, in MiB. A shard has five or so of them, more with many calls.
    segment_mb: Whole<1, 1024> = Whole(8);
    /// Pause between two syncs to disk, in milliseconds: what a loss of power may cost. A crash of the server costs nothing.
    sync_ms: Whole<1, 60_000> = Whole(1000);
    /// Pause between two writes of the calls that changed to cc_calls (rt_db_url), in milliseconds; more while the database is slow.
    /// 0: they are not kept there.
    rows_ms: Whole<0, 60_000> = Whole(1000);
}

section! {
    /// Call detail records on their way to the database.
    Cdr = "cdr";
    /// A batch is written when it has so many records,
    batch: Whole<1, 1000> = Whole(256);
    /// or so many milliseconds after its first.
    batch_ms: Whole<1, 60_000> = Whole(100);
    /// Most records between the shards and the writer.
    channel: Whole<1, 16_777_216> = Whole(65_536);
    /// Records that may wait on a shard when the channel is full; with more it refuses new calls.
    shard_backlog: Whole<1, 16_777_216> = Whole(16_384);
    /// Longest pause between two tries of a database that fails, in milliseconds; the first pause is 10.
    retry_max_ms: Whole<10, 60_000> = Whole(1000);
    /// File of records that the database refuses as bad, one JSON object a line. Empty: refused-cdrs.jsonl in the data directory.
    refused_file: String = String::new();
    /// Batches in the hands of the database at once. SQLite takes one at a time.
    concurrency: Whole<1, 256> = Whole(4);
    /// Directory of the spool, which takes records while the database is away or too slow, and no other process' files.
    /// Empty: spool/ in the data directory.
    spool_dir: String = String::new();
    /// Size of a spool segment, in MiB.
    spool_segment_mb: Whole<1, 4096> = Whole(64);
}

section! {
    /// Threads that carry the calls.
    Shards = "shards";
    /// How many. 0: one a core.
    count: Whole<0, 1024> = Whole(0);
    /// Bind each to its core.
    pin: Switch = Switch(true);
    /// For so many microseconds after it had work, and before a timer is due, a shard looks for more without sleeping:
    /// waking up takes the machine time. One that wakes up also wakes others where calls wait, so that they are ready when it
    /// frees an agent. While calls wait it also plays calls of nobody's, which keeps the way to the next agent in the processor's
    /// caches. What it costs is a part of a core. 0: never; 1000000: a loaded shard never sleeps.
    busy_poll_us: Whole<0, 1_000_000> = Whole(0);
    /// Have them run before all other programs (Linux: real-time, round-robin, priority 1), so that neither those nor the control plane
    /// make a call wait. Wants CAP_SYS_NICE or a limit of 1 on real-time priority (systemd: LimitRTPRIO=1); without, they run as
    /// usual, and the log says so. With busy_poll_us a shard then looks for work for no longer than that it rests for a quarter of
    /// its time. Where shards have all cores and are loaded to the full, the rest has what Linux leaves it, 5 %.
    real_time: Switch = Switch(false);
    /// Memory that the process takes at its start, in MiB: until it is used up no call waits for the machine to give some. What the
    /// process takes later, it then keeps, too. A queued call takes about 10 KiB, and until 32 s after it came. 0: it takes what it needs
    /// when it needs it.
    reserve_mb: Whole<0, 16_777_216> = Whole(0);
    /// Most agents that may ever be provisioned in the life of the process.
    max_agents: Whole<1, 16_777_216> = Whole(1_048_576);
    /// Most flows that may ever be provisioned in the life of the process.
    max_flows: Whole<1, 16_777_216> = Whole(65_536);
    /// Most different skills that may ever be provisioned in the life of the process.
    max_skills: Whole<1, 1_048_576> = Whole(65_536);
}

section! {
    /// Logs, on standard error.
    Log = "log";
    /// A level (error, warn, info, debug, trace), or a filter such as "info,strowger_engine=debug".
    level: String = "info".to_owned();
    /// "text" or "json".
    format: Word<LogFormat> = Word(LogFormat::Text);
}

section! {
    /// Events to subscribers (event_subscribe).
    Events = "events";
    /// Events that wait for one subscriber; what a slow one misses is counted.
    queue: Whole<1, 1_048_576> = Whole(1024);
    /// Seconds that a subscription lives when it does not say.
    expire: Seconds = Seconds::new(3600);
}

section! {
    /// Prometheus metrics, on the HTTP server of the management interface.
    Metrics = "metrics";
    /// 1: serve them.
    enabled: Switch = Switch(true);
    /// Their resource.
    path: HttpPath = HttpPath("/metrics".to_owned());
    /// Directory of latency histograms by interval, in HdrHistogram's log format (.hlog), a file a day. Empty: none.
    hlog_dir: String = String::new();
    /// Their interval, in seconds.
    hlog_s: Whole<1, 86_400> = Whole(10);
}

section! {
    /// One routing rule; the first whose conditions all hold decides. With no rules the Request-URI user is the flow id.
    /// They see each INVITE that begins a call, and MESSAGEs outside calls. Try them: strowger check --route "INVITE sip:.."
    /// A condition that is empty holds always. "=TEXT" is exact, "~REGEX" a regular expression (anywhere in the value, if
    /// not held by ^ and $), else a glob: * any text, ? one character, \ before a character takes its meaning away.
    /// In flow, param, agent and state, $1, $2 are what the groups of regular expressions and the * and ? of globs took
    /// in, counted over the conditions in the order below; ${NAME} is a group (?P<NAME>..), or one of method, ruri_user,
    /// ruri_host, from, to, from_user, to_user, header, call_id and source; $$ is a dollar.
    Rule = "rules" aliases &[("flowID", "flow"), ("agentID", "agent")];
    /// For messages about it.
    name: String = String::new();
    /// Conditions. method: INVITE or MESSAGE; a call can only be made of an INVITE.
    method: String = "INVITE".to_owned();
    /// User (decoded) and host of the Request-URI.
    ruri_user: String = String::new();
    ruri_host: String = String::new();
    /// URI of From and To, as sip:USER@HOST[:PORT] without parameters, the host in lower case.
    from: String = String::new();
    to: String = String::new();
    /// A header, "Name: PATTERN"; of several lines one must match.
    header: String = String::new();
    /// Address that the request came from; ADDR/BITS, too, such as 10.0.0.0/8.
    source: String = String::new();
    /// What to do: "handle_call", "agent_login" or "reject"; the manuals' cc_handle_call and cc_agent_login are the same.
    action: String = "handle_call".to_owned();
    /// For handle_call: the flow id and the opaque parameter.
    flow: String = "${ruri_user}".to_owned();
    param: String = String::new();
    /// For agent_login: the agent, and 0 (log out) or another number (log in). Whoever can dial it can do it: mind the
    /// source.
    agent: String = String::new();
    state: Scalar = Scalar("1".to_owned());
    /// For reject: the SIP code and its reason phrase. Empty: the code's own.
    code: Whole<400, 699> = Whole(403);
    reason: String = String::new();
    /// When the call cannot be handled: "" answers as [refusals] say, "next" tries the next rule, or a SIP code.
    on_failure: String = String::new();
}
