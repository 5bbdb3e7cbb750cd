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
mod caller;
mod check;
mod client;
mod context;
mod dist;
mod generator;
mod leg;
mod media;
mod net;
mod parse;
mod play;
mod report;
mod scenario;
mod sdp;
mod server;
mod template;
mod timers;

pub use dist::{Dist, DistError, parse_duration};
pub use generator::{Error, Generator};
pub use report::{Histograms, Latency, Live, Occurrences, Report};
pub use scenario::{AgentPlan, Arrivals, Behaviour, FlowShare, MediaPlan, Patience, Scenario, ScenarioError};
