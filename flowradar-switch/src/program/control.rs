//! Pipelines: tables, conditions and calls to one stream of code.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::action::{self, Action, Environment, LogMessage};
use super::assembler::Assembler;
use super::expression::{Constant, Expression, Scope};
use super::json::{self, Document};
use super::layout::Layout;
use super::op::{Label, Op, Slot};
use super::{LoadError, Objects, invalid, too_large, unsupported};
use crate::Value;
use crate::runtime::{ActionCall, EntryKey, MatchValue};

/// How many entries a table may hold, whatever the program asks for.
pub(crate) const MAX_ENTRIES: u64 = 1 << 24;

/// How wide a table's key may be, in slots.
const MAX_KEY_SLOTS: usize = 128;

/// A match-action table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) keys: Vec<Key>,
    pub(crate) kind: TableKind,
    /// Indexes of the program's actions, with where to go on after each.
    pub(crate) actions: Vec<(u16, Label)>,
    pub(crate) on_hit: Option<Label>,
    pub(crate) on_miss: Option<Label>,
    /// Where to go on if nothing is done.
    pub(crate) otherwise: Label,
    pub(crate) max_size: usize,
    pub(crate) with_counters: bool,
    pub(crate) supports_timeout: bool,
    pub(crate) direct_meter: Option<u16>,
    pub(crate) profile: Option<u16>,
    pub(crate) default: Option<ActionCall>,
    pub(crate) default_is_const: bool,
    pub(crate) entries_are_const: bool,
    pub(crate) entries: Vec<(EntryKey, ActionCall)>,
}

/// How a table is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableKind {
    Exact,
    Lpm,
    /// Ternary or range: entries have priorities.
    Prioritized,
}

/// A match field of a table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) kind: KeyKind,
    pub(crate) slot: Slot,
    pub(crate) limbs: u8,
    pub(crate) bits: u32,
    /// Reads as zero while this slot is zero: fields of invalid headers.
    pub(crate) valid: Option<Slot>,
    /// Which bits are compared at all.
    pub(crate) mask: Option<Vec<u64>>,
}

/// How a match field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Exact,
    Lpm,
    Range,
    Ternary,
    Valid,
}

/// An action profile.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) max_size: usize,
    /// The calculation that chooses from a group.
    pub(crate) selector: Option<u16>,
    /// Indexes of the actions that members may have: those of all its tables.
    pub(crate) actions: Vec<u16>,
}

/// What pipelines are compiled with, and to.
pub(super) struct ControlContext<'a> {
    pub(super) document: &'a Document,
    pub(super) layout: &'a Layout,
    pub(super) objects: &'a Objects,
    pub(super) actions: &'a [Action],
    pub(super) environment: Environment<'a>,
    pub(super) assembler: &'a mut Assembler,
    pub(super) messages: &'a mut Vec<LogMessage>,
    pub(super) tables: Vec<Table>,
    pub(super) profiles: Vec<Profile>,
    /// What the tables' next nodes are, until all code is there.
    nexts: Vec<TableNexts>,
}

struct TableNexts {
    actions: Vec<Option<String>>,
    hit: Option<Option<String>>,
    miss: Option<Option<String>>,
    otherwise: Option<String>,
}

#[derive(Clone, Copy)]
enum Node<'a> {
    Call(&'a json::ActionCall),
    Conditional(&'a json::Conditional),
    Table(&'a json::Table),
}

impl<'a> ControlContext<'a> {
    pub(super) fn new(
        document: &'a Document,
        objects: &'a Objects,
        environment: Environment<'a>,
        actions: &'a [Action],
        assembler: &'a mut Assembler,
        messages: &'a mut Vec<LogMessage>,
    ) -> Self {
        Self {
            document,
            layout: environment.scope.layout,
            objects,
            actions,
            environment,
            assembler,
            messages,
            tables: Vec::new(),
            profiles: Vec::new(),
            nexts: Vec::new(),
        }
    }

    /// Appends a pipeline's code; yields where it starts.
    pub(super) fn pipeline(
        &mut self,
        name: &str,
        selectors: &HashMap<&str, u16>,
    ) -> Result<Label, LoadError> {
        let mut pipelines = self.document.pipelines.iter();
        let Some(pipeline) = pipelines.find(|pipeline| pipeline.name == name) else {
            return Err(unsupported(
                "the program",
                &format!("having no pipeline {name}"),
            ));
        };
        for profile in &pipeline.action_profiles {
            let place = format!("action profile {}", profile.name);
            if profile.max_size > MAX_ENTRIES {
                return Err(too_large(&place, "members", profile.max_size, MAX_ENTRIES));
            }
            super::objects::index(&place, "action profiles", self.profiles.len())?;
            self.profiles.push(Profile {
                name: profile.name.clone(),
                max_size: profile.max_size as usize,
                selector: selectors.get(profile.name.as_str()).copied(),
                actions: Vec::new(),
            });
        }
        let nodes = nodes(pipeline)?;
        check_acyclic(pipeline, &nodes)?;
        self.emit(pipeline, &nodes)
    }

    /// Fills in where tables go on to, once their pipeline's code is there.
    fn link(
        &mut self,
        first_table: usize,
        labels: &HashMap<&str, Label>,
        end: Label,
    ) -> Result<(), LoadError> {
        let tables = self.tables.iter_mut().skip(first_table);
        for (table, nexts) in tables.zip(self.nexts.drain(..)) {
            let label = |next: &Option<String>| match next {
                None => Ok(end),
                Some(name) => labels.get(name.as_str()).copied().ok_or_else(|| {
                    invalid(
                        "table",
                        &table.name,
                        &format!("goes on to {name}, which is not there"),
                    )
                }),
            };
            table.otherwise = label(&nexts.otherwise)?;
            table.on_hit = nexts.hit.as_ref().map(label).transpose()?;
            table.on_miss = nexts.miss.as_ref().map(label).transpose()?;
            let actions = nexts
                .actions
                .iter()
                .map(label)
                .collect::<Result<Vec<_>, _>>()?;
            for ((_, next), label) in table.actions.iter_mut().zip(actions) {
                *next = label;
            }
        }
        Ok(())
    }

    fn emit(
        &mut self,
        pipeline: &'a json::Pipeline,
        nodes: &HashMap<&'a str, Node<'a>>,
    ) -> Result<Label, LoadError> {
        let start = self.assembler.here();
        let first_table = self.tables.len();
        let mut labels: HashMap<&str, Label> = HashMap::new();
        let mut jumps: Vec<(Label, Option<&str>)> = Vec::new();
        let mut pending: Vec<&str> = pipeline.init_table.as_deref().into_iter().collect();
        while let Some(name) = pending.pop() {
            if labels.contains_key(name) {
                continue;
            }
            let mut next = Some(name);
            // Applying a table says itself where to go on.
            let mut goes_on = true;
            while let Some(name) = next
                && goes_on
                && !labels.contains_key(name)
            {
                let Some(node) = nodes.get(name) else {
                    let reason = format!("goes on to {name}, which is not there");
                    return Err(invalid("pipeline", &pipeline.name, &reason));
                };
                labels.insert(name, self.assembler.here());
                match *node {
                    Node::Conditional(conditional) => {
                        let jump = self.condition(conditional)?;
                        jumps.push((jump, conditional.false_next.as_deref()));
                        pending.extend(conditional.false_next.as_deref());
                        next = conditional.true_next.as_deref();
                    }
                    Node::Call(call) => {
                        let is_wanted = |action: &Action| action.id == call.action_id;
                        let action = self.action(&call.name, is_wanted)?;
                        self.inline(action, &[])?;
                        next = call.next_node.as_deref();
                    }
                    Node::Table(table) => match self.inlined_table(table)? {
                        Some(after) => next = after,
                        None => {
                            self.table(table)?;
                            pending.extend(table.next_tables.values().filter_map(Json::as_str));
                            pending.extend(table.base_default_next.as_deref());
                            goes_on = false;
                        }
                    },
                }
            }
            if goes_on {
                jumps.push((self.assembler.here(), next));
                self.assembler.push("the program", Op::Jump { to: 0 })?;
            }
        }
        let end = self.assembler.here();
        self.assembler.push("the program", Op::Finish)?;
        for (from, name) in jumps {
            let target = match name {
                None => end,
                Some(name) => *labels.get(name).ok_or_else(|| {
                    let reason = format!("goes on to {name}, which is not there");
                    invalid("pipeline", &pipeline.name, &reason)
                })?,
            };
            self.assembler.patch(from, target);
        }
        self.link(first_table, &labels, end)?;
        Ok(start)
    }

    /// Appends a condition; yields the place of the jump that is taken if it is false.
    fn condition(&mut self, conditional: &json::Conditional) -> Result<Label, LoadError> {
        let place = format!("condition {}", conditional.name);
        let scope = Scope {
            place: &place,
            ..self.environment.scope
        };
        let expression = scope.boolean(Expression::new(scope, &conditional.expression)?)?;
        let condition = self.assembler.boolean(scope, &expression)?;
        let jump = self.assembler.jump_if_false(&place, condition)?;
        self.assembler.end_statement();
        Ok(jump)
    }

    /// Appends an action's code in place, for tables that always do the same. `Some` with the next
    /// node if that was possible.
    fn inlined_table(
        &mut self,
        table: &'a json::Table,
    ) -> Result<Option<Option<&'a str>>, LoadError> {
        let Some(default) = &table.default_entry else {
            return Ok(None);
        };
        let is_fixed = table.key.is_empty()
            && table.kind == "simple"
            && table.entries.is_empty()
            && default.action_const
            && default.action_entry_const
            && !table.with_counters
            && table.direct_meters.is_none();
        if !is_fixed {
            return Ok(None);
        }
        let action = self.action(&table.name, |action| action.id == default.action_id)?;
        let name = self.actions[usize::from(action)].name.clone();
        let next = match table
            .next_tables
            .get("__MISS__")
            .or_else(|| table.next_tables.get(&name))
        {
            Some(next) => next.as_str(),
            None => table.base_default_next.as_deref(),
        };
        self.inline(action, &default.action_data)?;
        Ok(Some(next))
    }

    fn inline(&mut self, action: u16, data: &[String]) -> Result<(), LoadError> {
        let action = &self.actions[usize::from(action)];
        let place = format!("action {}", action.name);
        if data.len() != action.parameters.len() {
            return Err(invalid(
                "action",
                &action.name,
                "is called with other than its parameters",
            ));
        }
        for (parameter, value) in action.parameters.iter().zip(data) {
            let scope = Scope {
                place: &place,
                ..self.environment.scope
            };
            let value = Constant::parse(value).ok_or_else(|| scope.invalid("a bad argument"))?;
            self.assembler
                .assign(scope, parameter, &Expression::Constant(value))?;
            self.assembler.end_statement();
        }
        let Some(json) = self
            .document
            .actions
            .iter()
            .find(|json| json.id == action.id)
        else {
            return Err(invalid("action", &action.name, "is not there"));
        };
        let scope = Scope {
            place: &place,
            arguments: &action.parameters,
            ..self.environment.scope
        };
        let environment = Environment {
            scope,
            ..self.environment
        };
        if action::primitives(self.assembler, self.messages, environment, &json.primitives)? {
            self.assembler.push(&place, Op::FinishIfExited)?;
        }
        Ok(())
    }

    fn action(&self, place: &str, is_wanted: impl Fn(&Action) -> bool) -> Result<u16, LoadError> {
        let position = self.actions.iter().position(is_wanted);
        position
            .and_then(|position| u16::try_from(position).ok())
            .ok_or_else(|| LoadError::Invalid {
                place: place.to_owned(),
                reason: "it has an action that is not there".to_owned(),
            })
    }

    fn table(&mut self, table: &json::Table) -> Result<(), LoadError> {
        let place = format!("table {}", table.name);
        if table.max_size > MAX_ENTRIES {
            return Err(too_large(&place, "entries", table.max_size, MAX_ENTRIES));
        }
        if self.tables.iter().any(|other| other.name == table.name) {
            return Err(invalid("table", &table.name, "is there twice"));
        }
        let keys = table
            .key
            .iter()
            .map(|key| self.key(&place, key))
            .collect::<Result<Vec<_>, _>>()?;
        let slots: usize = keys.iter().map(|key| usize::from(key.limbs)).sum();
        if slots > MAX_KEY_SLOTS {
            return Err(too_large(
                &place,
                "slots of key",
                slots as u64,
                MAX_KEY_SLOTS as u64,
            ));
        }
        let kind = match table.match_type.as_str() {
            "exact" => TableKind::Exact,
            "lpm" => TableKind::Lpm,
            "ternary" | "range" => TableKind::Prioritized,
            other => return Err(unsupported(&place, &format!("match type {other}"))),
        };
        check_kinds(&place, kind, &keys)?;
        let (actions, nexts) = self.table_actions(&place, table)?;
        let profile = self.table_profile(&place, table, &actions)?;
        let direct_meter = match &table.direct_meters {
            None => None,
            Some(name) => {
                let meter = self.objects.meter(&place, name)?;
                if !self.objects.meters[usize::from(meter)].is_direct {
                    return Err(invalid(
                        "table",
                        &table.name,
                        "has a direct meter that is not",
                    ));
                }
                Some(meter)
            }
        };
        let mut compiled = Table {
            name: table.name.clone(),
            keys,
            kind,
            actions,
            on_hit: None,
            on_miss: None,
            otherwise: 0,
            max_size: table.max_size as usize,
            with_counters: table.with_counters || self.has_direct_counter(&table.name),
            supports_timeout: table.support_timeout,
            direct_meter,
            profile,
            default: None,
            default_is_const: false,
            entries_are_const: !table.entries.is_empty(),
            entries: Vec::new(),
        };
        if let Some(default) = &table.default_entry {
            compiled.default = Some(self.call(&place, default)?);
            compiled.default_is_const = default.action_entry_const || default.action_const;
        }
        for entry in &table.entries {
            let entry = self.entry(&place, &compiled, entry)?;
            compiled.entries.push(entry);
        }
        let index = super::objects::index(&place, "tables", self.tables.len())?;
        self.tables.push(compiled);
        self.nexts.push(nexts);
        self.assembler.push(&place, Op::Apply { table: index })
    }

    fn has_direct_counter(&self, table: &str) -> bool {
        let mut counters = self.document.counter_arrays.iter();
        counters.any(|counter| counter.is_direct && counter.binding.as_deref() == Some(table))
    }

    fn table_actions(
        &self,
        place: &str,
        table: &json::Table,
    ) -> Result<(Vec<(u16, Label)>, TableNexts), LoadError> {
        let mut actions = Vec::with_capacity(table.actions.len());
        let mut nexts = Vec::with_capacity(table.actions.len());
        for (position, name) in table.actions.iter().enumerate() {
            // Names need not be unique among actions, identifiers are.
            let id = table.action_ids.get(position);
            let action = self.action(place, |action| {
                action.name == *name && id.is_none_or(|id| action.id == *id)
            })?;
            actions.push((action, 0));
            nexts.push(match table.next_tables.get(name) {
                Some(next) => next.as_str().map(str::to_owned),
                None => table.base_default_next.clone(),
            });
        }
        let special = |name| {
            let next = table.next_tables.get(name)?;
            Some(next.as_str().map(str::to_owned))
        };
        let nexts = TableNexts {
            actions: nexts,
            hit: special("__HIT__"),
            miss: special("__MISS__"),
            otherwise: table.base_default_next.clone(),
        };
        Ok((actions, nexts))
    }

    fn table_profile(
        &mut self,
        place: &str,
        table: &json::Table,
        actions: &[(u16, Label)],
    ) -> Result<Option<u16>, LoadError> {
        match table.kind.as_str() {
            "simple" => return Ok(None),
            "indirect" | "indirect_ws" => {}
            other => return Err(unsupported(place, &format!("table type {other}"))),
        }
        let name = table.action_profile.as_deref().unwrap_or_default();
        let Some(index) = self
            .profiles
            .iter()
            .position(|profile| profile.name == name)
        else {
            return Err(invalid(
                "table",
                &table.name,
                "has an action profile that is not there",
            ));
        };
        let profile = &mut self.profiles[index];
        if table.kind == "indirect_ws" && profile.selector.is_none() {
            return Err(invalid(
                "table",
                &table.name,
                "needs a selector its profile does not have",
            ));
        }
        for (action, _) in actions {
            if !profile.actions.contains(action) {
                profile.actions.push(*action);
            }
        }
        Ok(Some(index as u16))
    }

    fn key(&self, place: &str, key: &json::Key) -> Result<Key, LoadError> {
        let scope = Scope {
            place,
            ..self.environment.scope
        };
        let kind = match key.match_type.as_str() {
            "exact" => KeyKind::Exact,
            "lpm" => KeyKind::Lpm,
            "ternary" | "optional" => KeyKind::Ternary,
            "range" => KeyKind::Range,
            "valid" => KeyKind::Valid,
            other => return Err(unsupported(place, &format!("match kind {other}"))),
        };
        if kind == KeyKind::Valid {
            let name = key
                .target
                .as_str()
                .or_else(|| key.target.get(0).and_then(Json::as_str));
            let header = self.layout.header(place, name.unwrap_or_default())?;
            let name = key.name.clone().unwrap_or_else(|| header.name.clone());
            let slot = header.valid;
            return Ok(Key {
                name,
                kind,
                slot,
                limbs: 1,
                bits: 1,
                valid: None,
                mask: None,
            });
        }
        let (header, name) = super::expression::pair(scope, &key.target)?;
        let field = self.layout.field(place, header, name)?;
        if field.is_variable {
            return Err(unsupported(
                place,
                "a field of variable length as match field",
            ));
        }
        let layout = self.layout.header(place, header)?;
        let mask = match &key.mask {
            None => None,
            Some(mask) => {
                let mask = Constant::parse(mask).filter(|mask| !mask.is_negative);
                let mask = mask.ok_or_else(|| scope.invalid("a bad mask of a match field"))?;
                Some(mask.to_limbs(field.limbs.into()))
            }
        };
        let is_always_there = layout.is_metadata || name == "$valid$";
        Ok(Key {
            name: key
                .name
                .clone()
                .unwrap_or_else(|| format!("{header}.{name}")),
            kind,
            slot: field.slot,
            limbs: field.limbs,
            bits: field.bits,
            valid: (!is_always_there).then_some(layout.valid),
            mask,
        })
    }

    fn call(&self, place: &str, entry: &json::DefaultEntry) -> Result<ActionCall, LoadError> {
        let action = self.action(place, |action| action.id == entry.action_id)?;
        let action = &self.actions[usize::from(action)];
        let argument = |data: &String| value(place, data);
        let arguments = entry
            .action_data
            .iter()
            .map(argument)
            .collect::<Result<_, _>>()?;
        Ok(ActionCall {
            action: action.name.clone(),
            arguments,
        })
    }

    fn entry(
        &self,
        place: &str,
        table: &Table,
        entry: &json::Entry,
    ) -> Result<(EntryKey, ActionCall), LoadError> {
        let call = self.call(place, &entry.action_entry)?;
        if entry.match_key.len() != table.keys.len() {
            return Err(invalid(
                "table",
                &table.name,
                "has an entry with other match fields",
            ));
        }
        let matches = table
            .keys
            .iter()
            .zip(&entry.match_key)
            .map(|(key, json)| match_value(place, key, json))
            .collect::<Result<_, _>>()?;
        let priority = match table.kind {
            // bmv2 takes the smallest number first, P4Runtime the largest.
            TableKind::Prioritized => {
                let priority = i64::from(i32::MAX) - entry.priority;
                i32::try_from(priority.clamp(1, i64::from(i32::MAX))).unwrap_or(i32::MAX)
            }
            TableKind::Exact | TableKind::Lpm => 0,
        };
        Ok((EntryKey { matches, priority }, call))
    }
}

fn nodes(pipeline: &json::Pipeline) -> Result<HashMap<&str, Node<'_>>, LoadError> {
    let tables = pipeline
        .tables
        .iter()
        .map(|table| (table.name.as_str(), Node::Table(table)));
    let conditionals = pipeline
        .conditionals
        .iter()
        .map(|conditional| (conditional.name.as_str(), Node::Conditional(conditional)));
    let calls = pipeline
        .action_calls
        .iter()
        .map(|call| (call.name.as_str(), Node::Call(call)));
    let mut nodes = HashMap::new();
    for (name, node) in tables.chain(conditionals).chain(calls) {
        if nodes.insert(name, node).is_some() {
            let reason = format!("has two nodes named {name}");
            return Err(invalid("pipeline", &pipeline.name, &reason));
        }
    }
    Ok(nodes)
}

/// Refuses pipelines that would run for ever.
fn check_acyclic(
    pipeline: &json::Pipeline,
    nodes: &HashMap<&str, Node<'_>>,
) -> Result<(), LoadError> {
    let successors = |name: &str| -> Vec<String> {
        let nexts: Vec<Option<&str>> = match nodes.get(name) {
            Some(Node::Call(call)) => vec![call.next_node.as_deref()],
            Some(Node::Conditional(conditional)) => {
                vec![
                    conditional.true_next.as_deref(),
                    conditional.false_next.as_deref(),
                ]
            }
            Some(Node::Table(table)) => {
                let nexts = table.next_tables.values().map(Json::as_str);
                nexts.chain([table.base_default_next.as_deref()]).collect()
            }
            None => Vec::new(),
        };
        nexts.into_iter().flatten().map(str::to_owned).collect()
    };
    let mut done: HashSet<String> = HashSet::new();
    let mut on_path: HashSet<String> = HashSet::new();
    let mut stack: Vec<(String, Vec<String>)> = Vec::new();
    if let Some(first) = &pipeline.init_table {
        on_path.insert(first.clone());
        stack.push((first.clone(), successors(first)));
    }
    while let Some((name, nexts)) = stack.last_mut() {
        match nexts.pop() {
            Some(next) if on_path.contains(&next) => {
                let reason = format!("comes back to {next}");
                return Err(invalid("pipeline", &pipeline.name, &reason));
            }
            Some(next) if done.contains(&next) => {}
            Some(next) => {
                on_path.insert(next.clone());
                let nexts = successors(&next);
                stack.push((next, nexts));
            }
            None => {
                on_path.remove(name);
                done.insert(name.clone());
                stack.pop();
            }
        }
    }
    Ok(())
}

fn check_kinds(place: &str, kind: TableKind, keys: &[Key]) -> Result<(), LoadError> {
    let count = |wanted| keys.iter().filter(|key| key.kind == wanted).count();
    let is_wrong = match kind {
        TableKind::Exact => {
            count(KeyKind::Lpm) + count(KeyKind::Ternary) + count(KeyKind::Range) > 0
        }
        TableKind::Lpm => {
            count(KeyKind::Lpm) != 1 || count(KeyKind::Ternary) + count(KeyKind::Range) > 0
        }
        TableKind::Prioritized => count(KeyKind::Lpm) > 1,
    };
    if is_wrong {
        return Err(LoadError::Invalid {
            place: place.to_owned(),
            reason: "its match type does not fit its match fields".to_owned(),
        });
    }
    Ok(())
}

fn match_value(place: &str, key: &Key, json: &json::EntryMatch) -> Result<MatchValue, LoadError> {
    let text = |text: Option<&str>| value(place, text.unwrap_or_default());
    let whole = || text(json.key.as_str());
    Ok(match (key.kind, json.match_type.as_str()) {
        (KeyKind::Valid, _) => MatchValue::Valid(json.key.as_bool().unwrap_or_default()),
        (KeyKind::Lpm, "lpm") => MatchValue::Lpm {
            value: whole()?,
            prefix_length: json.prefix_length.unwrap_or_else(|| key.bits.into()) as u32,
        },
        (KeyKind::Ternary, "ternary" | "optional") => {
            let mask = match &json.mask {
                Some(mask) => value(place, mask)?,
                None => Value::ones(key.bits),
            };
            // The bits outside of the mask do not matter.
            let value = masked(&whole()?, &mask);
            MatchValue::Ternary { value, mask }
        }
        (KeyKind::Range, "range") => MatchValue::Range {
            low: text(json.start.as_deref())?,
            high: text(json.end.as_deref())?,
        },
        (KeyKind::Exact, "exact") => MatchValue::Exact(whole()?),
        _ => {
            return Err(LoadError::Invalid {
                place: place.to_owned(),
                reason: format!("an entry matches {} in another way", key.name),
            });
        }
    })
}

fn masked(value: &Value, mask: &Value) -> Value {
    let bytes = value
        .as_be_bytes()
        .iter()
        .rev()
        .zip(mask.as_be_bytes().iter().rev());
    let masked: Vec<u8> = bytes.map(|(value, mask)| value & mask).collect();
    Value::from_be_bytes(&masked.into_iter().rev().collect::<Vec<_>>())
}

fn value(place: &str, text: &str) -> Result<Value, LoadError> {
    match Constant::parse(text) {
        Some(constant) if !constant.is_negative => {
            let limbs = constant.to_limbs((constant.bits().div_ceil(64) as usize).max(1));
            Ok(Value::from_limbs(&limbs))
        }
        _ => Err(LoadError::Invalid {
            place: place.to_owned(),
            reason: format!("{text:?} is not a hexstr"),
        }),
    }
}
