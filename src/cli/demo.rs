//! `strowger demo`: play it, then say how it went.

use super::{Failure, Settings, runtime, say};
use crate::demo::{self, DemoArgs, DemoError};

pub(super) fn demo(settings: &Settings, args: &DemoArgs) -> Result<(), Failure> {
    let summary = runtime()?.block_on(demo::run(args, &settings.all()));
    let summary = summary.map_err(|e| match e {
        DemoError::Config(e) => Failure::Usage(e.to_string()),
        e => Failure::Fault(e.to_string()),
    })?;
    if args.json {
        say(&summary.json().to_string());
    } else {
        say(&summary.to_string());
    }
    if summary.balanced() { Ok(()) } else { Err(Failure::Told) }
}
