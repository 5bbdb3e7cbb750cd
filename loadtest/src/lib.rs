//! Load generator for SIP queue systems: callers, agents and media servers over real UDP, on one thread.
//!
//! It knows nothing of the system under test but its address. A [`Scenario`] says what is played; [`Generator::bind`]
//! opens the sockets, so that the system can be told where agents and media servers are; [`Generator::run`] plays it
//! and returns a [`Report`], whose books balance: each call offered was answered, abandoned, refused or failed.
//!
//! A call counts as answered when caller and agent hear each other: every leg's SDP says whose it is, and the generator
//! checks that the caller got that of the agent who got the caller's. Each received message is checked against
//! RFC 3261 and RFC 3264; see [`Report::violations`].
//!
//! ```no_run
//! use loadtest::{Generator, Scenario};
//!
//! let scenario = Scenario { rate: 100.0, target: "127.0.0.1:5060".parse()?, ..Scenario::default() };
//! let generator = Generator::bind(&scenario)?;
//! println!("agents are at sip:agent1@{0} to sip:agent50@{0}", generator.agent_addr());
//! println!("music is at sip:music@{}", generator.media_addr());
//! let report = generator.run();
//! assert!(report.balanced());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agent;
mod arrivals;
mod caller;
mod check;
mod client;
mod context;
mod dist;
mod generator;
mod hlog;
mod html;
mod interval;
mod leg;
mod limit;
mod media;
mod net;
mod outcome;
mod parse;
mod phase;
mod play;
mod process;
mod report;
mod scenario;
mod sdp;
mod series;
mod server;
mod table;
mod template;
mod timers;

pub use arrivals::{Arrival, Arrivals, ArrivalsError, read_arrivals};
pub use dist::{Dist, DistError, parse_duration};
pub use generator::{Error, Generator};
pub use hlog::{IntervalLog, write_percentiles};
pub use html::html_of;
pub use interval::{Counts, Gauges, Interval};
pub use limit::{Goal, Limit, LimitedBy, Search, Step};
pub use outcome::{Outcome, json_of, text_of};
pub use phase::{Histograms, Phase};
pub use process::Process;
pub use report::{Latency, Live, Occurrences, Report};
pub use scenario::{AgentPlan, Behaviour, FlowShare, MediaPlan, Patience, Scenario, ScenarioError};
pub use series::{Sample, Series, Spread};
