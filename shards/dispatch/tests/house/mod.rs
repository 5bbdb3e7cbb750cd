//! What the models begin with: two shards and a control plane, and threads that work on them.

use std::sync::Arc;

use loom::thread;
use strowger_dispatch::*;

use crate::arrive;

/// Handles of two shards and a control plane, and all matches so far.
pub struct House {
    pub dispatch: Arc<Dispatch>,
    pub handles: Vec<Option<Handle>>,
    pub out: Vec<Match>,
}

pub type Work = Box<dyn FnOnce(&mut Handle, &mut Vec<Match>) + Send>;

impl House {
    pub fn new() -> Self {
        let limits = Limits { shards: 2, agents: 2, waiting_per_shard: 2, skills: 2 };
        let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
        let handles = (0..=2).map(|n| Some(dispatch.handle(n))).collect();
        Self { dispatch, handles, out: Vec::new() }
    }

    pub fn on(&mut self, handle: usize) -> &mut Handle {
        self.handles[handle].as_mut().unwrap()
    }

    pub fn agent(&mut self, skills: &[SkillId], audio: bool, chat_slots: u8) -> AgentRef {
        self.on(2).add_agent(AgentSpec { skills, audio, chat_slots }).unwrap()
    }

    pub fn login(&mut self, agent: AgentRef) {
        let handle = self.handles[2].as_mut().unwrap();
        assert!(handle.login(agent, &mut self.out));
    }

    pub fn call(&mut self, handle: usize, skill: SkillId) -> WaitRef {
        let handle = self.handles[handle].as_mut().unwrap();
        arrive(handle, Media::Audio, skill, &mut self.out)
    }

    /// Runs the pieces of work at the same time, the first on this thread.
    pub fn race(&mut self, works: Vec<(usize, Work)>) {
        let mut works = works.into_iter();
        let (first, work) = works.next().unwrap();
        let threads: Vec<_> = works
            .map(|(n, work)| {
                let mut handle = self.handles[n].take().unwrap();
                let run = move || {
                    let mut out = Vec::new();
                    work(&mut handle, &mut out);
                    handle.take_late(&mut out);
                    (handle, out)
                };
                (n, thread::spawn(run))
            })
            .collect();
        let mut own = Vec::new();
        let handle = self.handles[first].as_mut().unwrap();
        work(handle, &mut own);
        handle.take_late(&mut own);
        self.out.append(&mut own);
        for (n, thread) in threads {
            let (handle, mut out) = thread.join().unwrap();
            self.handles[n] = Some(handle);
            self.out.append(&mut out);
        }
    }

    pub fn agent_of(&self, wait: WaitRef) -> Option<AgentRef> {
        let mut agents = self.out.iter().filter(|m| m.wait == wait).map(|m| m.agent);
        let agent = agents.next();
        assert_eq!(agents.next(), None, "a call has one winner");
        agent
    }

    pub fn waits(&self, wait: WaitRef) -> bool {
        self.handles[0].as_ref().unwrap().is_waiting(wait)
    }

    pub fn state(&self, agent: AgentRef) -> AgentState {
        self.dispatch.agent(agent).unwrap().state
    }

    pub fn no_garbage(&mut self) {
        for handle in self.handles.iter_mut().flatten() {
            handle.collect();
        }
        assert_eq!(self.dispatch.garbage(), 0);
    }
}
