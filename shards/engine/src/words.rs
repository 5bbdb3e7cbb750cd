//! What a call keeps of its caller's words, in one allocation.

/// The words laid open.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said<'a> {
    /// Name and display name of the caller.
    pub user: &'a str,
    pub display: &'a str,
    /// From value without its tag.
    pub from: &'a [u8],
    /// Header lines that go to the agent.
    pub passed: &'a [u8],
    pub param: Option<&'a str>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Words {
    /// One behind the other, in the order of [`Said`].
    all: Box<[u8]>,
    /// Where the first four end.
    ends: [u32; 4],
    has_param: bool,
}

impl Words {
    pub(crate) fn new(said: &Said<'_>) -> Words {
        let param = said.param.unwrap_or_default();
        let parts = [said.user.as_bytes(), said.display.as_bytes(), said.from, said.passed, param.as_bytes()];
        let mut all = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        let mut end = |part: &[u8]| {
            all.extend_from_slice(part);
            // They are of one message.
            u32::try_from(all.len()).unwrap_or(u32::MAX)
        };
        let ends = [end(parts[0]), end(parts[1]), end(parts[2]), end(parts[3])];
        end(parts[4]);
        Words { all: all.into_boxed_slice(), ends, has_param: said.param.is_some() }
    }

    fn part(&self, n: usize) -> &[u8] {
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let end = self.ends.get(n).map_or(self.all.len(), |end| *end as usize);
        self.all.get(start..end).unwrap_or_default()
    }

    fn text(&self, n: usize) -> &str {
        // It was text when it was put there.
        std::str::from_utf8(self.part(n)).unwrap_or_default()
    }

    pub(crate) fn user(&self) -> &str {
        self.text(0)
    }

    pub(crate) fn display(&self) -> &str {
        self.text(1)
    }

    pub(crate) fn from(&self) -> &[u8] {
        self.part(2)
    }

    pub(crate) fn passed(&self) -> &[u8] {
        self.part(3)
    }

    pub(crate) fn param(&self) -> Option<&str> {
        self.has_param.then(|| self.text(4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_apart() {
        let said =
            Said { user: "anna", display: "Änne", from: b"<sip:anna@h>", passed: b"X-A: 1\r\n", param: Some("") };
        let words = Words::new(&said);
        assert_eq!((words.user(), words.display()), (said.user, said.display));
        assert_eq!((words.from(), words.passed(), words.param()), (said.from, said.passed, said.param));
        let none = Words::new(&Said::default());
        assert_eq!((none.user(), none.from(), none.passed(), none.param()), ("", &b""[..], &b""[..], None));
        let param = Words::new(&Said { param: Some("p"), ..said });
        assert_eq!((param.passed(), param.param()), (said.passed, Some("p")));
    }
}
