//! Actions: lists of primitives to code.

use serde_json::Value as Json;

use super::assembler::{Assembler, Need, Number, Range};
use super::expression::{Expression, Scope, pair};
use super::json::{self, TypedValue};
use super::layout::{FieldLayout, internal};
use super::op::{Label, Op, Slot};
use super::{LoadError, too_large};

/// How many arguments an action's parameters may need, in slots.
const MAX_ARGUMENT_SLOTS: u64 = 1024;

/// A compiled action.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) name: String,
    pub(crate) id: u64,
    pub(crate) parameters: Vec<FieldLayout>,
    /// Where arguments go, one after the other.
    pub(crate) first_argument: Slot,
    pub(crate) argument_slots: u16,
    /// Where its code starts; it ends with `Return`.
    pub(crate) start: Label,
}

/// A message of `log_msg`: text and values in turns.
#[derive(Clone, Debug)]
pub(crate) struct LogMessage {
    pub(crate) texts: Vec<String>,
    pub(crate) values: Vec<Number>,
}

/// What primitives need besides the assembler.
#[derive(Clone, Copy)]
pub(super) struct Environment<'a> {
    pub(super) scope: Scope<'a>,
    /// `egress_spec` and `mcast_grp` of the standard metadata.
    pub(super) egress_spec: Option<&'a FieldLayout>,
    pub(super) mcast_grp: Option<&'a FieldLayout>,
    /// Holds the port that drops.
    pub(super) drop_port: Slot,
}

impl Action {
    pub(super) fn parameters(
        assembler: &mut Assembler,
        action: &json::Action,
    ) -> Result<(Vec<FieldLayout>, Slot, u16), LoadError> {
        let place = format!("action {}", action.name);
        let mut slots = 0;
        for parameter in &action.runtime_data {
            if parameter.bitwidth == 0 || parameter.bitwidth > 4096 {
                let place = format!("{place}, parameter {}", parameter.name);
                return Err(too_large(&place, "bits", parameter.bitwidth, 4096));
            }
            slots += parameter.bitwidth.div_ceil(64);
        }
        if slots > MAX_ARGUMENT_SLOTS {
            return Err(too_large(
                &place,
                "slots for arguments",
                slots,
                MAX_ARGUMENT_SLOTS,
            ));
        }
        let first = assembler.reserve(&place, slots as u32)?;
        let mut slot = first;
        let mut parameters = Vec::with_capacity(action.runtime_data.len());
        for parameter in &action.runtime_data {
            let limbs = parameter.bitwidth.div_ceil(64) as u8;
            parameters.push(FieldLayout {
                name: parameter.name.clone(),
                bits: parameter.bitwidth as u32,
                is_signed: false,
                slot,
                limbs,
                is_variable: false,
            });
            slot += Slot::from(limbs);
        }
        Ok((parameters, first, slots as u16))
    }
}

/// Appends the code of primitives; says whether one of them is `exit`.
pub(super) fn primitives(
    assembler: &mut Assembler,
    messages: &mut Vec<LogMessage>,
    environment: Environment<'_>,
    primitives: &[json::Primitive],
) -> Result<bool, LoadError> {
    let mut labels = Vec::with_capacity(primitives.len() + 1);
    let mut jumps = Vec::new();
    let mut exits = false;
    for primitive in primitives {
        labels.push(assembler.here());
        let place = format!("{}, primitive {}", environment.scope.place, primitive.op);
        let scope = Scope {
            place: &place,
            ..environment.scope
        };
        let mut compiler = Primitive {
            assembler,
            messages,
            environment: Environment {
                scope,
                ..environment
            },
        };
        match primitive.op.as_str() {
            "_jump" => {
                let target = compiler.jump_target(&primitive.parameters, 0)?;
                jumps.push((compiler.assembler.here(), target));
                compiler.push(Op::Jump { to: 0 })?;
            }
            "_jump_if_zero" => {
                let condition = compiler.slot(&primitive.parameters, 0)?;
                let target = compiler.jump_target(&primitive.parameters, 1)?;
                jumps.push((compiler.assembler.jump_if_false(&place, condition)?, target));
            }
            op => {
                exits |= op == "exit";
                compiler.primitive(op, &primitive.parameters)?;
            }
        }
        assembler.end_statement();
    }
    labels.push(assembler.here());
    for (position, (from, target)) in jumps.into_iter().enumerate() {
        // Jumps only go forward in what p4c writes; a loop would never end.
        match labels.get(target) {
            Some(label) if *label > from => assembler.patch(from, *label),
            _ => {
                let reason = format!("jump {position} does not go forward within the action");
                return Err(environment.scope.invalid(&reason));
            }
        }
    }
    Ok(exits)
}

/// The compilation of one primitive.
struct Primitive<'a, 's> {
    assembler: &'a mut Assembler,
    messages: &'a mut Vec<LogMessage>,
    environment: Environment<'s>,
}

impl Primitive<'_, '_> {
    fn primitive(&mut self, op: &str, parameters: &[TypedValue]) -> Result<(), LoadError> {
        match op {
            "assign" | "modify_field" => self.assign(parameters),
            "assign_VL" => {
                let (to, from) = (self.variable(parameters, 0)?, self.variable(parameters, 1)?);
                self.push(Op::AssignVariable { to, from })
            }
            "assign_header" | "copy_header" => {
                let (to, from) = (self.header(parameters, 0)?, self.header(parameters, 1)?);
                self.environment.scope.same_type(to, from)?;
                self.push(Op::AssignHeader { to, from })
            }
            "assign_header_stack" => self.assign_stack(parameters),
            "assign_union" => self.assign_union(parameters),
            "push" => {
                let (stack, count) = (self.stack(parameters, 0)?, self.slot(parameters, 1)?);
                self.push(Op::PushStack { stack, count })
            }
            "pop" => {
                let (stack, count) = (self.stack(parameters, 0)?, self.slot(parameters, 1)?);
                self.push(Op::PopStack { stack, count })
            }
            "add_header" => {
                let header = self.header(parameters, 0)?;
                self.push(Op::AddHeader { header })
            }
            "add_header_fast" => {
                let header = self.header(parameters, 0)?;
                self.push(Op::ValidateHeader { header })
            }
            "remove_header" => {
                let header = self.header(parameters, 0)?;
                let valid = self.scope().layout.headers[usize::from(header)].valid;
                self.push(Op::RemoveHeader { header, valid })
            }
            "mark_to_drop" | "drop" => self.mark_to_drop(),
            "modify_field_with_hash_based_offset" => self.hash(parameters),
            "modify_field_rng_uniform" => self.random(parameters),
            "register_read" => {
                let register = self.object(parameters, 1, "register_array")?;
                let register = self
                    .scope()
                    .objects
                    .register(self.scope().place, register)?;
                let index = self.slot(parameters, 2)?;
                let to = self.field(parameters, 0)?;
                self.assembler
                    .register_read(self.environment.scope, register, index, &to)
            }
            "register_write" => self.register_write(parameters),
            "count" => {
                let counter = self.object(parameters, 0, "counter_array")?;
                let counter = self.scope().objects.counter(self.scope().place, counter)?;
                let index = self.slot(parameters, 1)?;
                self.push(Op::Count { counter, index })
            }
            "execute_meter" => self.execute_meter(parameters),
            "generate_digest" => {
                let id = self.slot(parameters, 1)?;
                self.push(Op::Copy {
                    to: internal::DIGEST,
                    from: id,
                })
            }
            "clone_ingress_pkt_to_egress" | "clone_egress_pkt_to_egress" => self.clone_(parameters),
            "resubmit" => {
                let list = self.slot(parameters, 0)?;
                self.push(Op::Copy {
                    to: internal::RESUBMIT,
                    from: list,
                })
            }
            "recirculate" => {
                let list = self.slot(parameters, 0)?;
                self.push(Op::Copy {
                    to: internal::RECIRCULATE,
                    from: list,
                })
            }
            "truncate" => {
                let length = self.slot(parameters, 0)?;
                self.push(Op::Truncate { length })
            }
            "exit" => self.push(Op::Exit),
            "assert" | "assume" => {
                let condition = self.expression(parameters, 0)?;
                let condition = if condition.is_bool() {
                    self.assembler.boolean(self.environment.scope, &condition)?
                } else {
                    self.assembler.index(self.environment.scope, &condition)?
                };
                self.push(Op::Assert {
                    condition,
                    is_assume: op == "assume",
                })
            }
            "log_msg" => self.log(parameters),
            "no_op" => Ok(()),
            other => Err(self.scope().unsupported(&format!("primitive {other}"))),
        }
    }

    fn assign(&mut self, parameters: &[TypedValue]) -> Result<(), LoadError> {
        let value = self.expression(parameters, 1)?;
        let target = self.parameter(parameters, 0)?;
        if target.kind == "field" {
            let to = self.field(parameters, 0)?;
            return self.assembler.assign(self.environment.scope, &to, &value);
        }
        match Expression::typed(self.scope(), &target.kind, &target.value)? {
            Expression::Field(to) => self.assembler.assign(self.environment.scope, &to, &value),
            Expression::IndexedField {
                stack,
                index,
                field,
            } => {
                let scope = self.environment.scope;
                let first = usize::from(scope.layout.stacks[usize::from(stack)].headers[0]);
                let layout = &scope.layout.headers[first].fields[field];
                let slot = self.assembler.temporary(scope, layout.limbs.into())?;
                let to = FieldLayout {
                    slot,
                    ..layout.clone()
                };
                self.assembler.assign(scope, &to, &value)?;
                let index = self.assembler.index(scope, &index)?;
                let access = self.assembler.fields_access(scope, stack, field)?;
                self.push(Op::StoreIndexed {
                    from: slot,
                    access,
                    index,
                })
            }
            _ => Err(self
                .scope()
                .unsupported("an assignment to this kind of expression")),
        }
    }

    fn assign_stack(&mut self, parameters: &[TypedValue]) -> Result<(), LoadError> {
        let (to, from) = (self.stack(parameters, 0)?, self.stack(parameters, 1)?);
        let stacks = &self.scope().layout.stacks;
        let (a, b) = (&stacks[usize::from(to)], &stacks[usize::from(from)]);
        if a.header_type != b.header_type || a.headers.len() != b.headers.len() {
            return Err(self.scope().invalid("stacks of different types"));
        }
        self.push(Op::AssignStack { to, from })
    }

    fn assign_union(&mut self, parameters: &[TypedValue]) -> Result<(), LoadError> {
        let scope = self.environment.scope;
        let to = scope
            .layout
            .union(scope.place, self.object(parameters, 0, "header_union")?)?;
        let from = scope
            .layout
            .union(scope.place, self.object(parameters, 1, "header_union")?)?;
        if to.headers.len() != from.headers.len() {
            return Err(scope.invalid("header unions of different types"));
        }
        for (to, from) in to.headers.iter().zip(&from.headers) {
            scope.same_type(*to, *from)?;
            self.push(Op::AssignHeader {
                to: *to,
                from: *from,
            })?;
        }
        Ok(())
    }

    fn mark_to_drop(&mut self) -> Result<(), LoadError> {
        let Some(egress_spec) = self.environment.egress_spec else {
            return Err(self
                .scope()
                .invalid("no egress_spec in the standard metadata"));
        };
        let (to, from, bits) = (
            egress_spec.slot,
            self.environment.drop_port,
            egress_spec.bits as u8,
        );
        self.push(Op::Mask { to, from, bits })?;
        if let Some(mcast_grp) = self.environment.mcast_grp {
            let zero = self.assembler.constant(self.environment.scope.place, 0)?;
            self.push(Op::Copy {
                to: mcast_grp.slot,
                from: zero,
            })?;
        }
        Ok(())
    }

    fn hash(&mut self, parameters: &[TypedValue]) -> Result<(), LoadError> {
        let scope = self.environment.scope;
        let to = self.field(parameters, 0)?;
        let base = self.expression(parameters, 1)?;
        let name = self.object(parameters, 2, "calculation")?;
        let calculation = scope.objects.calculation(scope.place, name)?;
        let size = self.expression(parameters, 3)?;
        let result = self.assembler.temporary(scope, 1)?;
        let is_zero = base.as_constant().and_then(|base| base.to_u64()) == Some(0);
        // A power of two leaves low bits; a size of zero is taken as one.
        let size_bits = size
            .as_constant()
            .and_then(|size| match size.magnitude.as_slice() {
                [size] if size.is_power_of_two() && *size > 1 => Some(size.trailing_zeros()),
                _ => None,
            });
        if let (true, Some(bits)) = (is_zero, size_bits) {
            self.push(Op::Hash {
                calculation,
                to: result,
            })?;
            let op = Op::Mask {
                to: result,
                from: result,
                bits: bits as u8,
            };
            self.push(op)?;
            let number = Number::exact(result, 1, Range::unsigned(bits));
            return self.assembler.store(scope, &to, number);
        }
        let base = self.assembler.index(scope, &base)?;
        let size = self.assembler.index(scope, &size)?;
        self.push(Op::HashRange {
            calculation,
            to: result,
            base,
            size,
        })?;
        self.assembler
            .store(scope, &to, Number::exact(result, 1, Range::unsigned(64)))
    }

    fn random(&mut self, parameters: &[TypedValue]) -> Result<(), LoadError> {
        let to = self.field(parameters, 0)?;
        let low = self.slot(parameters, 1)?;
        let high = self.slot(parameters, 2)?;
        if to.limbs != 1 {
            return Err(self
                .scope()
                .unsupported("a random number of more than 64 bits"));
        }
        self.push(Op::Random {
            to: to.slot,
            low,
            high,
            bits: to.bits as u8,
        })
    }

    fn register_write(&mut self, parameters: &[TypedValue]) -> Result<(), LoadError> {
        let scope = self.environment.scope;
        let name = self.object(parameters, 0, "register_array")?;
        let register = scope.objects.register(scope.place, name)?;
        let bits = scope.objects.registers[usize::from(register)].bits;
        let value = self.expression(parameters, 2)?;
        let index = self.slot(parameters, 1)?;
        let from = if value.is_bool() {
            self.assembler.boolean(scope, &value)?
        } else {
            let number = self.assembler.number(scope, &value, Need::Low(bits))?;
            self.assembler
                .extend(scope, number, bits.div_ceil(64) as u8)?
        };
        self.push(Op::RegisterWrite {
            register,
            index,
            from,
        })
    }

    fn execute_meter(&mut self, parameters: &[TypedValue]) -> Result<(), LoadError> {
        let scope = self.environment.scope;
        let meter = scope
            .objects
            .meter(scope.place, self.object(parameters, 0, "meter_array")?)?;
        let index = self.slot(parameters, 1)?;
        let to = self.field(parameters, 2)?;
        if to.limbs != 1 {
            return Err(scope.unsupported("a color of more than 64 bits"));
        }
        if scope.objects.meters[usize::from(meter)].is_direct {
            return Err(scope.invalid("execute_meter of a direct meter"));
        }
        self.push(Op::ExecuteMeter {
            meter,
            index,
            to: to.slot,
            bits: to.bits as u8,
        })
    }

    fn clone_(&mut self, parameters: &[TypedValue]) -> Result<(), LoadError> {
        let scope = self.environment.scope;
        let session = self.slot(parameters, 0)?;
        let list = self.slot(parameters, 1)?;
        // Sessions are 16 bits wide on bmv2, the uppermost of which says that there is one.
        let number = self.assembler.temporary(scope, 1)?;
        self.push(Op::Copy {
            to: number,
            from: session,
        })?;
        let op = Op::Clamp {
            to: number,
            limbs: 1,
            from_signed: false,
            to_signed: false,
            bits: 16,
        };
        self.push(op)?;
        let marker = self.assembler.constant(scope.place, 0x8000)?;
        self.push(Op::Or {
            to: internal::CLONE_SESSION,
            a: number,
            b: marker,
        })?;
        self.push(Op::Copy {
            to: internal::CLONE_FIELD_LIST,
            from: list,
        })
    }

    fn log(&mut self, parameters: &[TypedValue]) -> Result<(), LoadError> {
        let scope = self.environment.scope;
        let format = self.object(parameters, 0, "string")?.to_owned();
        let vector = self
            .parameter(parameters, 1)?
            .value
            .as_array()
            .cloned()
            .unwrap_or_default();
        let texts: Vec<String> = format.split("{}").map(str::to_owned).collect();
        if texts.len() != vector.len() + 1 {
            return Err(scope.unsupported("log_msg with other than one value for each {}"));
        }
        let mut values = Vec::with_capacity(vector.len());
        for value in &vector {
            let value = Expression::new(scope, value)?;
            values.push(if value.is_bool() {
                Number::exact(
                    self.assembler.boolean(scope, &value)?,
                    1,
                    Range::unsigned(1),
                )
            } else {
                self.assembler.number(scope, &value, Need::Exact)?
            });
        }
        let message = super::objects::index(scope.place, "log messages", self.messages.len())?;
        self.messages.push(LogMessage { texts, values });
        self.push(Op::Log { message })
    }

    fn scope(&self) -> Scope<'_> {
        self.environment.scope
    }

    fn push(&mut self, op: Op) -> Result<(), LoadError> {
        self.assembler.push(self.environment.scope.place, op)
    }

    fn parameter<'p>(
        &self,
        parameters: &'p [TypedValue],
        index: usize,
    ) -> Result<&'p TypedValue, LoadError> {
        parameter(self.scope(), parameters, index)
    }

    fn expression(&self, parameters: &[TypedValue], index: usize) -> Result<Expression, LoadError> {
        let parameter = self.parameter(parameters, index)?;
        Expression::typed(self.scope(), &parameter.kind, &parameter.value)
    }

    /// A number in one slot: see [`Assembler::index`]. Booleans are 0 and 1.
    fn slot(&mut self, parameters: &[TypedValue], index: usize) -> Result<Slot, LoadError> {
        let expression = self.expression(parameters, index)?;
        if expression.is_bool() {
            self.assembler.boolean(self.environment.scope, &expression)
        } else {
            self.assembler.index(self.environment.scope, &expression)
        }
    }

    fn jump_target(&self, parameters: &[TypedValue], index: usize) -> Result<usize, LoadError> {
        let target = self.expression(parameters, index)?;
        let target = target.as_constant().and_then(|target| target.to_u64());
        target
            .and_then(|target| usize::try_from(target).ok())
            .ok_or_else(|| self.scope().unsupported("a jump to a computed place"))
    }

    /// The field that a reference names; must not be of variable length.
    fn field(&self, parameters: &[TypedValue], index: usize) -> Result<FieldLayout, LoadError> {
        let parameter = self.parameter(parameters, index)?;
        let scope = self.scope();
        if parameter.kind != "field" {
            return Err(scope.unsupported(&format!("\"{}\" as destination", parameter.kind)));
        }
        let (header, name) = pair(scope, &parameter.value)?;
        let field = scope.layout.field(scope.place, header, name)?;
        if field.is_variable {
            return Err(scope.unsupported("a field of variable length as destination"));
        }
        if name == "$valid$" {
            return Err(scope.invalid("$valid$ is read-only"));
        }
        Ok(field)
    }

    /// The header whose field of variable length a reference names.
    fn variable(&self, parameters: &[TypedValue], index: usize) -> Result<u16, LoadError> {
        let parameter = self.parameter(parameters, index)?;
        let scope = self.scope();
        let (header, name) = pair(scope, &parameter.value)?;
        if !scope.layout.field(scope.place, header, name)?.is_variable {
            return Err(scope.invalid("assign_VL of a field of fixed length"));
        }
        scope.layout.header_index(scope.place, header)
    }

    fn header(&self, parameters: &[TypedValue], index: usize) -> Result<u16, LoadError> {
        let name = self.object(parameters, index, "header")?;
        self.scope().layout.header_index(self.scope().place, name)
    }

    fn stack(&self, parameters: &[TypedValue], index: usize) -> Result<u16, LoadError> {
        let name = self.object(parameters, index, "header_stack")?;
        self.scope().layout.stack_index(self.scope().place, name)
    }

    /// The name of an object of a kind.
    fn object<'p>(
        &self,
        parameters: &'p [TypedValue],
        index: usize,
        kind: &str,
    ) -> Result<&'p str, LoadError> {
        object(self.scope(), parameters, index, kind)
    }
}

fn parameter<'p>(
    scope: Scope<'_>,
    parameters: &'p [TypedValue],
    index: usize,
) -> Result<&'p TypedValue, LoadError> {
    let parameter = parameters.get(index);
    parameter.ok_or_else(|| scope.invalid("a parameter is missing"))
}

/// The name of an object of a kind.
fn object<'p>(
    scope: Scope<'_>,
    parameters: &'p [TypedValue],
    index: usize,
    kind: &str,
) -> Result<&'p str, LoadError> {
    let parameter = parameter(scope, parameters, index)?;
    if parameter.kind != kind {
        let construct = format!("\"{}\" where a {kind} is expected", parameter.kind);
        return Err(scope.unsupported(&construct));
    }
    let name = parameter.value.as_str();
    name.ok_or_else(|| scope.invalid("a name that is not a string"))
}

/// The header that a primitive removes, with the slot that says whether it is valid; `None` if it does
/// something else.
pub(super) fn removed_header(
    scope: Scope<'_>,
    primitive: &json::Primitive,
) -> Result<Option<(u16, Slot)>, LoadError> {
    if primitive.op != "remove_header" {
        return Ok(None);
    }
    let name = object(scope, &primitive.parameters, 0, "header")?;
    let header = scope.layout.header_index(scope.place, name)?;
    let valid = scope.layout.headers[usize::from(header)].valid;
    Ok(Some((header, valid)))
}

/// A primitive in a parser: an object with `op` and `parameters`.
pub(super) fn from_json(scope: Scope<'_>, json: &Json) -> Result<json::Primitive, LoadError> {
    serde_json::from_value(json.clone())
        .map_err(|_| scope.invalid("a primitive without op and parameters"))
}
