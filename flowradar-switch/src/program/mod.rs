//! Programs: p4c's JSON for bmv2, checked and compiled.
//!
//! Loading goes from the JSON's shapes (`json`) over headers and fields in slots (`layout`), named
//! objects (`objects`) and expressions with ranges (`expression`, `assembler`) to one stream of
//! instructions (`op`) for parser, pipelines and checksums (`parser`, `action`, `control`).

pub(crate) mod action;
pub(crate) mod assembler;
pub(crate) mod control;
mod error;
mod expression;
mod json;
pub(crate) mod layout;
pub(crate) mod objects;
pub(crate) mod op;
pub(crate) mod parser;

use std::collections::{HashMap, HashSet};

pub use error::LoadError;

use action::{Action, Environment, LogMessage};
use assembler::{Access, Assembler};
use control::{ControlContext, KeyKind, Profile, Table, TableKind};
use expression::{Expression, Scope};
use json::Document;
use layout::{FieldLayout, Layout};
pub(crate) use objects::Objects;
use op::{Label, Op, Slot};
use parser::{Parser, ParserContext, ParserErrors};

/// A checked and compiled program.
///
/// Nothing in a program changes once it is loaded; a [`Pipeline`](crate::Pipeline) adds the state.
#[derive(Debug)]
pub struct Program {
    pub(crate) compiler: Option<String>,
    pub(crate) layout: Layout,
    pub(crate) objects: Objects,
    pub(crate) code: Vec<Op>,
    pub(crate) constants: Vec<(Slot, u64)>,
    pub(crate) accesses: Vec<Access>,
    pub(crate) messages: Vec<LogMessage>,
    pub(crate) actions: Vec<Action>,
    pub(crate) tables: Vec<Table>,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) parser: Parser,
    pub(crate) errors: ParserErrors,
    pub(crate) ingress: Label,
    pub(crate) egress: Label,
    /// The headers in the order in which they are sent, each with the slot that says whether it is.
    pub(crate) deparser: Vec<(Slot, u16)>,
    /// Where each header is in the deparser, if it is.
    pub(crate) deparser_positions: Vec<Option<u16>>,
    pub(crate) checksums: Vec<Checksum>,
    pub(crate) standard: StandardMetadata,
    /// Holds the port that drops.
    pub(crate) drop_port: Slot,
}

/// A checksum that is verified after parsing or updated before sending.
#[derive(Debug)]
pub(crate) struct Checksum {
    pub(crate) calculation: u16,
    pub(crate) target: FieldLayout,
    /// The header of the target; a checksum is verified only if it is valid.
    pub(crate) valid: Slot,
    pub(crate) verify: bool,
    pub(crate) update: bool,
    /// Code to run, and where it leaves whether the checksum is meant at all.
    pub(crate) condition: Option<(Label, Slot)>,
}

/// The fields that the switch itself reads and writes; those that a program may lack are optional.
#[derive(Clone, Debug)]
pub(crate) struct StandardMetadata {
    pub(crate) ingress_port: FieldLayout,
    pub(crate) packet_length: FieldLayout,
    pub(crate) instance_type: FieldLayout,
    pub(crate) egress_spec: FieldLayout,
    pub(crate) egress_port: FieldLayout,
    pub(crate) parser_error: Option<FieldLayout>,
    pub(crate) checksum_error: Option<FieldLayout>,
    pub(crate) mcast_grp: Option<FieldLayout>,
    pub(crate) egress_rid: Option<FieldLayout>,
    pub(crate) ingress_global_timestamp: Option<FieldLayout>,
    pub(crate) egress_global_timestamp: Option<FieldLayout>,
    pub(crate) enq_timestamp: Option<FieldLayout>,
    pub(crate) enq_qdepth: Option<FieldLayout>,
    pub(crate) deq_timedelta: Option<FieldLayout>,
    pub(crate) deq_qdepth: Option<FieldLayout>,
}

/// A table, as a program declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its match fields.
    pub fields: Vec<MatchFieldInfo>,
    /// Its actions' names.
    pub actions: Vec<String>,
    /// How many entries it may hold.
    pub max_size: usize,
    /// The action profile it takes actions from.
    pub profile: Option<String>,
    /// Whether entries have priorities: if any field is ternary, optional or a range.
    pub has_priorities: bool,
    /// Whether entries count packets.
    pub has_counters: bool,
    /// Whether entries meter packets.
    pub has_meters: bool,
    /// Whether entries may have an idle timeout.
    pub supports_timeout: bool,
    /// Whether the program fixes the entries.
    pub has_const_entries: bool,
    /// Whether the program fixes what is done if nothing matches.
    pub has_const_default: bool,
}

/// A match field of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchFieldInfo {
    /// Its name.
    pub name: String,
    /// How it is compared; `optional` is ternary in bmv2's JSON.
    pub kind: MatchKind,
    /// Its width in bits.
    pub bits: u32,
}

/// How a match field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    /// Equal.
    Exact,
    /// The longest prefix.
    Lpm,
    /// Between two values.
    Range,
    /// Under a mask.
    Ternary,
    /// A header's validity (P4_14).
    Valid,
}

impl Program {
    /// Checks and compiles the JSON that `p4c-bm2-ss` writes.
    ///
    /// # Errors
    ///
    /// If it is not such a JSON, contradicts itself, exceeds a limit, or needs a construct that is not
    /// supported; `docs/switch.md` lists what is.
    pub fn from_json(json: &[u8]) -> Result<Self, LoadError> {
        let document = Document::parse(json)?;
        if let Some(meta) = &document.meta
            && meta.version.0 != 2
        {
            let (major, minor) = meta.version;
            return Err(unsupported(
                "the JSON",
                &format!("format version {major}.{minor}"),
            ));
        }
        let layout = Layout::new(&document)?;
        let mut objects = Objects::new(&document, &layout)?;
        let selectors = selectors(&document, &layout, &mut objects)?;
        let standard = StandardMetadata::new(&layout)?;
        let mut assembler = Assembler::new(&layout);
        let drop_port = assembler.reserve("the program", 1)?;
        let mut messages = Vec::new();
        let place = "the program";
        let scope = Scope {
            layout: &layout,
            objects: &objects,
            arguments: &[],
            place,
        };
        let environment = Environment {
            scope,
            egress_spec: Some(&standard.egress_spec),
            mcast_grp: standard.mcast_grp.as_ref(),
            drop_port,
        };
        let actions = actions(&document, environment, &mut assembler, &mut messages)?;
        let context = ParserContext {
            layout: &layout,
            objects: &objects,
            environment,
            assembler: &mut assembler,
            messages: &mut messages,
        };
        let parser = Parser::new(&document, context)?;
        let mut control = ControlContext::new(
            &document,
            &objects,
            environment,
            &actions,
            &mut assembler,
            &mut messages,
        );
        let ingress = control.pipeline("ingress", &selectors)?;
        let egress = control.pipeline("egress", &selectors)?;
        let (tables, profiles) = (control.tables, control.profiles);
        let checksums = checksums(&document, scope, &mut assembler)?;
        let deparser = deparser(&document, &layout)?;
        let mut deparser_positions = vec![None; layout.headers.len()];
        for (position, (_, header)) in (0..).zip(&deparser) {
            deparser_positions[usize::from(*header)] = Some(position);
        }
        let Assembler {
            code,
            constants,
            accesses,
            ..
        } = assembler;
        let program = Self {
            compiler: document.meta.and_then(|meta| meta.compiler),
            code,
            constants,
            accesses,
            messages,
            actions,
            tables,
            profiles,
            parser,
            errors: ParserErrors::new(&document.errors),
            ingress,
            egress,
            deparser,
            deparser_positions,
            checksums,
            standard,
            drop_port,
            layout,
            objects,
        };
        crate::pipeline::check_program_entries(&program).map_err(|(table, error)| {
            LoadError::Invalid {
                place: format!("table {table}"),
                reason: error.to_string(),
            }
        })?;
        Ok(program)
    }

    /// What the JSON says about its compiler.
    pub fn compiler(&self) -> Option<&str> {
        self.compiler.as_deref()
    }

    /// All tables that entries can be added to.
    pub fn tables(&self) -> impl Iterator<Item = TableInfo> {
        self.tables.iter().map(|table| self.table_info(table))
    }

    /// All registers, with their number of cells and their cells' width in bits.
    pub fn registers(&self) -> impl Iterator<Item = (&str, usize, u32)> {
        let registers = self.objects.registers.iter();
        registers.map(|register| (register.name.as_str(), register.size, register.bits))
    }

    /// All digests' names.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.objects
            .digests
            .iter()
            .map(|digest| digest.name.as_str())
    }

    fn table_info(&self, table: &Table) -> TableInfo {
        let fields = table.keys.iter().map(|key| MatchFieldInfo {
            name: key.name.clone(),
            kind: match key.kind {
                KeyKind::Exact => MatchKind::Exact,
                KeyKind::Lpm => MatchKind::Lpm,
                KeyKind::Range => MatchKind::Range,
                KeyKind::Ternary => MatchKind::Ternary,
                KeyKind::Valid => MatchKind::Valid,
            },
            bits: key.bits,
        });
        let action = |(action, _): &(u16, Label)| self.actions[usize::from(*action)].name.clone();
        TableInfo {
            name: table.name.clone(),
            fields: fields.collect(),
            actions: table.actions.iter().map(action).collect(),
            max_size: table.max_size,
            profile: table
                .profile
                .map(|profile| self.profiles[usize::from(profile)].name.clone()),
            has_priorities: table.kind == TableKind::Prioritized,
            has_counters: table.with_counters,
            has_meters: table.direct_meter.is_some(),
            supports_timeout: table.supports_timeout,
            has_const_entries: table.entries_are_const,
            has_const_default: table.default_is_const,
        }
    }
}

impl StandardMetadata {
    fn new(layout: &Layout) -> Result<Self, LoadError> {
        let narrow = |group: &str, name: &str| {
            layout
                .aliased(group, name)
                .filter(|field| field.limbs == 1 && !field.is_signed)
        };
        let required = |name| {
            narrow("standard_metadata", name).ok_or_else(|| {
                let reason = format!("has no field {name} of at most 64 bits; v1model has it");
                invalid("header", "standard_metadata", &reason)
            })
        };
        Ok(Self {
            ingress_port: required("ingress_port")?,
            packet_length: required("packet_length")?,
            instance_type: required("instance_type")?,
            egress_spec: required("egress_spec")?,
            egress_port: required("egress_port")?,
            parser_error: narrow("standard_metadata", "parser_error"),
            checksum_error: narrow("standard_metadata", "checksum_error"),
            mcast_grp: narrow("intrinsic_metadata", "mcast_grp"),
            egress_rid: narrow("intrinsic_metadata", "egress_rid"),
            ingress_global_timestamp: narrow("intrinsic_metadata", "ingress_global_timestamp"),
            egress_global_timestamp: narrow("intrinsic_metadata", "egress_global_timestamp"),
            enq_timestamp: narrow("queueing_metadata", "enq_timestamp"),
            enq_qdepth: narrow("queueing_metadata", "enq_qdepth"),
            deq_timedelta: narrow("queueing_metadata", "deq_timedelta"),
            deq_qdepth: narrow("queueing_metadata", "deq_qdepth"),
        })
    }
}

fn selectors<'d>(
    document: &'d Document,
    layout: &Layout,
    objects: &mut Objects,
) -> Result<HashMap<&'d str, u16>, LoadError> {
    let mut selectors = HashMap::new();
    for profile in document
        .pipelines
        .iter()
        .flat_map(|pipeline| &pipeline.action_profiles)
    {
        if let Some(selector) = &profile.selector {
            let calculation = objects.add_selector(&profile.name, selector, layout)?;
            selectors.insert(profile.name.as_str(), calculation);
        }
    }
    Ok(selectors)
}

fn actions(
    document: &Document,
    environment: Environment<'_>,
    assembler: &mut Assembler,
    messages: &mut Vec<LogMessage>,
) -> Result<Vec<Action>, LoadError> {
    let mut ids = HashSet::new();
    let mut actions = Vec::with_capacity(document.actions.len());
    for action in &document.actions {
        objects::index("the program", "actions", actions.len())?;
        if !ids.insert(action.id) {
            return Err(invalid("action", &action.name, "has the id of another"));
        }
        let (parameters, first_argument, argument_slots) = Action::parameters(assembler, action)?;
        let start = assembler.here();
        let place = format!("action {}", action.name);
        let scope = Scope {
            arguments: &parameters,
            place: &place,
            ..environment.scope
        };
        let environment = Environment {
            scope,
            ..environment
        };
        action::primitives(assembler, messages, environment, &action.primitives)?;
        assembler.push(&place, Op::Return)?;
        assembler.end_statement();
        actions.push(Action {
            name: action.name.clone(),
            id: action.id,
            parameters,
            first_argument,
            argument_slots,
            start,
        });
    }
    Ok(actions)
}

fn checksums(
    document: &Document,
    scope: Scope<'_>,
    assembler: &mut Assembler,
) -> Result<Vec<Checksum>, LoadError> {
    let mut checksums = Vec::with_capacity(document.checksums.len());
    for checksum in &document.checksums {
        let place = format!("checksum {}", checksum.name);
        let scope = Scope {
            place: &place,
            ..scope
        };
        if checksum.kind != "generic" {
            return Err(scope.unsupported(&format!("checksum type {}", checksum.kind)));
        }
        let calculation = checksum.calculation.as_deref().unwrap_or_default();
        let calculation = scope.objects.calculation(&place, calculation)?;
        let (header, field) = &checksum.target;
        let target = scope.layout.field(&place, header, field)?;
        if target.limbs != 1 || target.is_signed {
            return Err(scope.unsupported("a checksum of more than 64 bits"));
        }
        let condition = match &checksum.if_cond {
            None | Some(serde_json::Value::Null) => None,
            Some(condition) => {
                let condition = scope.boolean(Expression::new(scope, condition)?)?;
                let start = assembler.here();
                let slot = assembler.boolean(scope, &condition)?;
                assembler.push(&place, Op::Finish)?;
                assembler.end_statement();
                Some((start, slot))
            }
        };
        checksums.push(Checksum {
            calculation,
            target,
            valid: scope.layout.header(&place, header)?.valid,
            verify: checksum.verify,
            update: checksum.update,
            condition,
        });
    }
    Ok(checksums)
}

fn deparser(document: &Document, layout: &Layout) -> Result<Vec<(Slot, u16)>, LoadError> {
    let deparser = match document.deparsers.as_slice() {
        [deparser] if deparser.name == "deparser" => deparser,
        _ => {
            return Err(unsupported(
                "the program",
                "other than one deparser, named deparser",
            ));
        }
    };
    if !deparser.primitives.is_empty() {
        return Err(unsupported("the deparser", "a primitive in a deparser"));
    }
    let header = |name: &String| {
        let index = layout.header_index("the deparser", name)?;
        let header = &layout.headers[usize::from(index)];
        if header.is_metadata {
            return Err(invalid("header", name, "is metadata, which cannot be sent"));
        }
        Ok((header.valid, index))
    };
    let mut seen = HashSet::new();
    if let Some(twice) = deparser.order.iter().find(|name| !seen.insert(*name)) {
        return Err(unsupported(
            "the deparser",
            &format!("sending header {twice} twice"),
        ));
    }
    objects::index("the deparser", "headers", deparser.order.len())?;
    deparser.order.iter().map(header).collect()
}

fn invalid(kind: &str, name: &str, reason: &str) -> LoadError {
    LoadError::Invalid {
        place: format!("{kind} {name}"),
        reason: reason.to_owned(),
    }
}

fn unsupported(place: &str, construct: &str) -> LoadError {
    LoadError::Unsupported {
        place: place.to_owned(),
        construct: construct.to_owned(),
    }
}

fn too_large(place: &str, what: &'static str, size: u64, limit: u64) -> LoadError {
    LoadError::TooLarge {
        place: place.to_owned(),
        what,
        size,
        limit,
    }
}
