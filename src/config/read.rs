//! From the text of a file to a [`Config`]: every key looked up in the schema, every fault with its line.
//! What a value must be beyond its type is in [`super::sense`].

use super::schema::{Rule, Section};
use super::sense::{self, Finding};
use super::{Config, ConfigError, Fault, Loaded, Setting, each_section};
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads `text`, then lays `settings` over it.
pub(super) fn read(place: &str, text: &str, settings: &[Setting]) -> Result<Loaded, ConfigError> {
    let mut reader =
        Reader { place, text, config: Config::default(), faults: vec![], warnings: vec![], set_at: BTreeMap::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for e in &errors {
        let line = e.span().map_or_else(|| line_without_place(text), |s| line_of(text, s.start));
        reader.faults.push(Fault {
            place: place.to_owned(),
            line: Some(line),
            key: String::new(),
            what: format!("not TOML: {}", e.message()),
        });
    }
    if errors.is_empty() {
        reader.table(table.get_ref());
    }
    for s in settings {
        reader.setting(s, settings);
    }
    reader.sense(settings);
    reader.faults.sort_by_key(|f| f.line);
    if reader.faults.is_empty() {
        Ok(Loaded { config: reader.config, file: None, warnings: reader.warnings })
    } else {
        Err(ConfigError::Faults(reader.faults))
    }
}

/// The line of a fault whose place the parser does not tell (a key of too many parts): the first with which the text has it.
fn line_without_place(text: &str) -> usize {
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).chain([text.len()]).collect();
    let placed = |end: &usize| DeTable::parse_recoverable(&text[..*end]).1.iter().all(|e| e.span().is_some());
    (ends.partition_point(placed) + 1).min(ends.len())
}

/// The candidate with the least edit distance.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates.into_iter().map(|c| (distance(word, c), c)).min().map(|(_, c)| c)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(ca != *cb)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count()
}

fn unknown(kind: &str, word: &str, known: &[&str]) -> String {
    format!("unknown {kind}; did you mean `{}`?", nearest(word, known.iter().copied()).unwrap_or_default())
}

/// Sets one key of a section.
enum Put {
    Done,
    /// Taken under an alias of this key.
    Alias(&'static str),
}

fn put<S: Section>(section: &mut S, key: &str, value: &DeValue<'_>) -> Result<Put, String> {
    let alias = S::ALIASES.iter().find(|(a, _)| *a == key).map(|(_, k)| *k);
    let name = alias.unwrap_or(key);
    if !S::KEYS.iter().any(|k| k.name == name) {
        let names: Vec<&str> = S::KEYS.iter().map(|k| k.name).collect();
        return Err(unknown("key", key, &names));
    }
    section.set(name, value)?;
    Ok(alias.map_or(Put::Done, Put::Alias))
}

/// Keys that are set under an old and a new name to different values.
fn clashes<S: Section>(_: &S, keys: &DeTable<'_>) -> Vec<(usize, String, Result<Put, String>)> {
    let find = |name: &str| keys.iter().find(|(k, _)| *k.get_ref() == name);
    let one = |(alias, key): &(&'static str, &'static str)| {
        let (old, new) = (find(alias)?, find(key)?);
        let at = S::KEYS.iter().position(|k| k.name == *key)?;
        let shown = |v: &DeValue<'_>| {
            let mut section = S::default();
            section.set(key, v).ok().and_then(|()| section.show().into_iter().nth(at))
        };
        let (old_value, new_value) = (shown(old.1.get_ref())?, shown(new.1.get_ref())?);
        let what = format!("is {old_value}, and `{key}`, the new name of the same thing, is {new_value}; keep one");
        (old_value != new_value).then(|| (old.0.span().start, (*alias).to_owned(), Err(what)))
    };
    S::ALIASES.iter().filter_map(one).collect()
}

/// The same among the settings of the command line: the other name and its value.
fn clash_of<'s>(setting: &Setting, settings: &'s [Setting]) -> Option<&'s Setting> {
    let names = |s: &Setting| s.key.split_once('.').map(|(section, key)| (section.to_owned(), modern(section, key)));
    settings
        .iter()
        .find(|s| s.key != setting.key && names(s) == names(setting) && s.value.trim() != setting.value.trim())
}

/// The name under which a section knows a key.
fn modern(section: &str, key: &str) -> String {
    fn of<S: Section>(_: &S, key: &str) -> Option<&'static str> {
        S::ALIASES.iter().find(|(a, _)| *a == key).map(|(_, k)| *k)
    }
    let mut found = None;
    each_section!(&mut Config::default(), s => if section_name(s) == section { found = of(s, key); });
    found.unwrap_or(key).to_owned()
}

struct Reader<'t> {
    place: &'t str,
    text: &'t str,
    config: Config,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    /// The line of each key of the file, by section and key.
    set_at: BTreeMap<(String, String), usize>,
}

impl Reader<'_> {
    fn fault(&mut self, at: usize, key: String, what: String) {
        let line = Some(line_of(self.text, at));
        self.faults.push(Fault { place: self.place.to_owned(), line, key, what });
    }

    fn old_name(&mut self, at: usize, key: String, modern: &str) {
        let line = Some(line_of(self.text, at));
        let what = format!("an old name, taken as `{modern}`");
        self.warnings.push(Fault { place: self.place.to_owned(), line, key, what });
    }

    fn table(&mut self, root: &DeTable<'_>) {
        for (name, value) in root {
            let at = name.span().start;
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("rules", rules) => self.rules(at, rules),
                (section, DeValue::Table(keys)) => self.section(at, section, keys),
                (section, DeValue::Array(_)) if section_names().contains(&section) => {
                    self.fault(
                        at,
                        format!("[[{section}]]"),
                        format!("not a list of sections; write [{section}], once"),
                    );
                }
                (key, _) => {
                    let what = match owner_of(key) {
                        Some(section) => format!("a key outside a section; it belongs under [{section}]"),
                        None => "a key outside a section; begin a section such as [call_center] before it".to_owned(),
                    };
                    self.fault(at, key.to_owned(), what);
                }
            }
        }
    }

    fn section(&mut self, at: usize, name: &str, keys: &DeTable<'_>) {
        let mut known = false;
        let mut found: Vec<(usize, String, Result<Put, String>)> = vec![];
        each_section!(&mut self.config, s => if section_name(s) == name {
            known = true;
            for (key, value) in keys {
                found.push((key.span().start, key.get_ref().to_string(), put(s, key.get_ref(), value.get_ref())));
            }
            found.extend(clashes(s, keys));
        });
        if !known {
            let names = section_names();
            self.fault(at, format!("[{name}]"), unknown("section", name, &names));
        }
        for (at, key, result) in found {
            self.set_at.insert((name.to_owned(), key.clone()), line_of(self.text, at));
            let key = format!("[{name}] {key}");
            match result {
                Ok(Put::Done) => {}
                Ok(Put::Alias(k)) => self.old_name(at, key, k),
                Err(what) => self.fault(at, key, what),
            }
        }
    }

    fn rules(&mut self, at: usize, rules: &DeValue<'_>) {
        let Some(list) = rules.as_array() else {
            return self.fault(at, "[rules]".to_owned(), "rules are a list; write [[rules]] before each".to_owned());
        };
        for (number, item) in (1..).zip(list) {
            let at = item.span().start;
            match item.get_ref().as_table() {
                Some(keys) => self.rule(number, at, keys),
                None => {
                    let what = "a rule is a table; write [[rules]] before it".to_owned();
                    self.fault(at, format!("[[rules]] {number}"), what);
                }
            }
        }
    }

    /// The rule of that number, from 1 on.
    fn rule(&mut self, number: usize, at: usize, keys: &DeTable<'_>) {
        let mut rule = Rule::default();
        let before = self.faults.len();
        let mut given: Vec<&str> = vec![];
        let found = keys.iter().map(|(key, value)| {
            let name: &str = key.get_ref();
            (key.span().start, name.to_owned(), put(&mut rule, name, value.get_ref()))
        });
        let found: Vec<_> = found.collect();
        for (at, key, result) in found.into_iter().chain(clashes(&rule, keys)) {
            let place = format!("[[rules]] {number} {key}");
            match result {
                Ok(Put::Done) => {}
                Ok(Put::Alias(modern)) => {
                    given.push(modern);
                    self.old_name(at, place, modern);
                }
                Err(what) => self.fault(at, place, what),
            }
        }
        if let Some(action) = rule.take_function() {
            self.old_name(at, format!("[[rules]] {number} action"), action);
        }
        // What a rule is worth is seen when all of it can be read.
        if self.faults.len() == before {
            given.extend(keys.keys().map(|k| -> &str { k.get_ref() }));
            for (key, what) in rule.faults(&given) {
                let place = keys.keys().find(|k| *k.get_ref() == key).map_or(at, |k| k.span().start);
                let name = if rule.name.is_empty() { String::new() } else { format!(" ({})", rule.name) };
                self.fault(place, format!("[[rules]] {number}{name} {key}"), what);
            }
        }
        self.config.rules.push(rule);
    }

    fn setting(&mut self, s: &Setting, all: &[Setting]) {
        let fault = |what: String| Fault { place: s.flag.clone(), line: None, key: s.key.clone(), what };
        let Some((section, key)) = s.key.split_once('.') else {
            return self.faults.push(fault("expected section.key=value".to_owned()));
        };
        // As TOML if it is that (numbers, quoted strings, lists), else as the string that it is.
        let parsed = DeValue::parse(&s.value).ok().map(Spanned::into_inner);
        let plain = DeValue::String(s.value.as_str().into());
        let mut known = false;
        let mut result = Ok(Put::Done);
        each_section!(&mut self.config, sec => if section_name(sec) == section {
            known = true;
            result = match &parsed {
                Some(v) => put(sec, key, v).or_else(|typed| put(sec, key, &plain).map_err(|said| clearer(typed, said))),
                None => put(sec, key, &plain),
            };
        });
        if section == Rule::NAME {
            self.faults.push(fault("rules are set in the file only; write [[rules]] there".to_owned()));
        } else if known {
            match result {
                Ok(Put::Done) => {}
                Ok(Put::Alias(k)) => match clash_of(s, all) {
                    Some(other) => self.faults.push(fault(format!(
                        "is {}, and `{k}`, the new name of the same thing, is {}; keep one",
                        s.value, other.value
                    ))),
                    None => self.warnings.push(fault(format!("an old name, taken as `{k}`"))),
                },
                Err(what) => self.faults.push(fault(what)),
            }
        } else {
            let names = section_names();
            self.faults.push(fault(unknown("section", section, &names)));
        }
    }

    /// What the keys mean together, once all are read.
    fn sense(&mut self, settings: &[Setting]) {
        let found = sense::check(&mut self.config);
        let placed = |f: Finding| match settings.iter().rev().find(|s| s.key == format!("{}.{}", f.section, f.key)) {
            Some(s) => Fault { place: s.flag.clone(), line: None, key: s.key.clone(), what: f.what },
            None => Fault {
                place: if self.place.is_empty() { "configuration".to_owned() } else { self.place.to_owned() },
                line: self.set_at.get(&(f.section.to_owned(), f.key.to_owned())).copied(),
                key: format!("[{}] {}", f.section, f.key),
                what: f.what,
            },
        };
        let faults: Vec<Fault> = found.faults.into_iter().map(placed).collect();
        let warnings: Vec<Fault> = found.warnings.into_iter().map(placed).collect();
        self.faults.extend(faults);
        self.warnings.extend(warnings);
    }
}

/// Of the faults of a value taken as TOML and taken as the string that it is: the one that speaks of what was typed.
fn clearer(typed: String, said: String) -> String {
    if typed.starts_with("expected a string") { said } else { typed }
}

fn section_name<S: Section>(_: &S) -> &'static str {
    S::NAME
}

fn section_names() -> Vec<&'static str> {
    let mut names = vec![];
    each_section!(&mut Config::default(), s => names.push(section_name(s)));
    names.push(Rule::NAME);
    names
}

/// The section that has a key of that name.
fn owner_of(key: &str) -> Option<&'static str> {
    fn has<S: Section>(_: &S, key: &str) -> bool {
        S::KEYS.iter().any(|k| k.name == key)
    }
    let mut owner = None;
    each_section!(&mut Config::default(), s => if owner.is_none() && has(s, key) { owner = Some(section_name(s)) });
    owner
}
