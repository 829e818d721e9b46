//! A template's tree applied to a document.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use super::functions::{self, Function};
use super::parse::{Base, Command, Kind, Node, Operand, Pipeline};
use super::{Fields, OUTPUT_LIMIT_BYTES, STEPS_LIMIT, print};

/// The field that is a method with docker: an object here, in which the argument is looked up.
pub(crate) const METHOD: &str = "Label";

/// Fields whose objects docker keeps as maps.
const MAPS: [&str; 16] = [
    "Annotations",
    "Attributes",
    "Containers",
    "Data",
    "DriverOpts",
    "ExposedPorts",
    "Label",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// What something comes to; `json` is `None` for what is not there, which prints as `<no value>`.
#[derive(Debug, Clone)]
pub(super) struct Value<'a> {
    pub(super) json: Option<Cow<'a, Json>>,
    /// An object in which anything may be looked up.
    is_map: bool,
}

impl<'a> Value<'a> {
    const NONE: Self = Self { json: None, is_map: true };

    pub(super) fn owned(json: Json) -> Self {
        Self { json: Some(Cow::Owned(json)), is_map: true }
    }

    fn borrowed(json: &'a Json) -> Self {
        Self { json: Some(Cow::Borrowed(json)), is_map: false }
    }

    /// As an argument of a function, where what is not there is nil.
    pub(super) fn json(&self) -> &Json {
        self.json.as_deref().unwrap_or(&Json::Null)
    }

    pub(super) fn is_true(&self) -> bool {
        match self.json() {
            Json::Null => false,
            Json::Bool(value) => *value,
            Json::Number(number) => number.as_f64() != Some(0.0),
            Json::String(text) => !text.is_empty(),
            Json::Array(list) => !list.is_empty(),
            Json::Object(map) => !map.is_empty(),
        }
    }

    /// A part of an object; `None` if it is not there.
    fn part(self, key: &str) -> Option<Cow<'a, Json>> {
        match self.json? {
            Cow::Borrowed(Json::Object(map)) => map.get(key).map(Cow::Borrowed),
            Cow::Owned(Json::Object(mut map)) => map.remove(key).map(Cow::Owned),
            _ => None,
        }
    }
}

/// What the nodes make of a document.
pub(super) fn render(nodes: &[Node], document: &Json, fields: Fields) -> Result<String, String> {
    let root = Value::borrowed(document);
    let variables = vec![("$".to_owned(), root.clone())];
    let mut run = Run { fields, variables, out: String::new(), steps: 0 };
    run.nodes(nodes, &root)?;
    Ok(run.out)
}

/// Whether a `range` goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    fields: Fields,
    variables: Vec<(String, Value<'a>)>,
    out: String,
    steps: usize,
}

impl<'a> Run<'a> {
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > STEPS_LIMIT { Err(format!("it takes more than {STEPS_LIMIT} steps")) } else { Ok(()) }
    }

    fn write(&mut self, text: &str) -> Result<(), String> {
        if self.out.len() + text.len() > OUTPUT_LIMIT_BYTES {
            return Err(format!("it writes more than {OUTPUT_LIMIT_BYTES} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn nodes(&mut self, nodes: &'a [Node], dot: &Value<'a>) -> Result<Flow, String> {
        for node in nodes {
            self.step()?;
            match node {
                Node::Text(text) => self.write(text)?,
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.write(&print::action(value.json()))?;
                    }
                }
                Node::Branch { kind, pipeline, then, otherwise } => {
                    let outside = self.variables.len();
                    let flow = match kind {
                        Kind::Range => self.range(pipeline, then, otherwise, dot)?,
                        _ => {
                            let value = self.pipeline(pipeline, dot)?;
                            match (value.is_true(), kind) {
                                (true, Kind::With) => self.nodes(then, &value)?,
                                (true, _) => self.nodes(then, dot)?,
                                (false, _) => self.nodes(otherwise, dot)?,
                            }
                        }
                    };
                    self.variables.truncate(outside);
                    if flow != Flow::On {
                        return Ok(flow);
                    }
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        pipeline: &'a Pipeline,
        then: &'a [Node],
        otherwise: &'a [Node],
        dot: &Value<'a>,
    ) -> Result<Flow, String> {
        // With variables they are those of each turn, not of the whole.
        let value = self.commands(pipeline, dot)?;
        if pipeline.declares {
            self.variables.extend(pipeline.variables.iter().map(|name| (name.clone(), Value::NONE)));
        }
        let items = items(value)?;
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let inside = self.variables.len();
        for (key, item) in items {
            self.step()?;
            match pipeline.variables.as_slice() {
                [one] => self.set(one, item.clone()),
                [first, second] => {
                    self.set(first, key);
                    self.set(second, item.clone());
                }
                _ => {}
            }
            let flow = self.nodes(then, &item)?;
            self.variables.truncate(inside);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    /// Gives the variable that was declared last under that name a value.
    fn set(&mut self, name: &str, value: Value<'a>) {
        if let Some(variable) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            variable.1 = value;
        }
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Value<'a>) -> Result<Value<'a>, String> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            match pipeline.declares {
                true => self.variables.push((name.clone(), value.clone())),
                false => self.set(name, value.clone()),
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &'a Pipeline, dot: &Value<'a>) -> Result<Value<'a>, String> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped, dot)?);
        }
        Ok(piped.unwrap_or(Value::NONE))
    }

    fn command(&mut self, command: &'a Command, piped: Option<Value<'a>>, dot: &Value<'a>) -> Result<Value<'a>, String> {
        self.step()?;
        let Some((first, rest)) = command.split_first() else { return Ok(Value::NONE) };
        match first {
            Operand::Function(function) => self.call(*function, rest, piped, dot),
            _ if rest.is_empty() && piped.is_none() => self.operand(first, dot),
            Operand::Path(base, fields) => self.method(base, fields, rest, piped, dot),
            _ => Err("what is no function takes no arguments".into()),
        }
    }

    fn call(
        &mut self,
        function: Function,
        operands: &'a [Operand],
        piped: Option<Value<'a>>,
        dot: &Value<'a>,
    ) -> Result<Value<'a>, String> {
        let mut arguments = Vec::new();
        for operand in operands {
            let value = self.operand(operand, dot)?;
            // The others are not looked at.
            if function.is_decided_by(value.is_true()) {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(piped);
        let called = functions::call(function, arguments, self.fields == Fields::Headings);
        called.map_err(|why| format!("{}: {why}", function.name()))
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value<'a>) -> Result<Value<'a>, String> {
        match operand {
            Operand::Literal(value) => Ok(Value::borrowed(value)),
            Operand::Nil => Ok(Value::owned(Json::Null)),
            Operand::Function(function) => self.call(*function, &[], None, dot),
            Operand::Path(base, fields) => {
                if fields.last().is_some_and(|name| name == METHOD) && self.fields != Fields::Maps {
                    return Err(format!("{METHOD} wants the name of a label"));
                }
                self.path(base, fields, dot)
            }
        }
    }

    fn path(&mut self, base: &'a Base, fields: &[String], dot: &Value<'a>) -> Result<Value<'a>, String> {
        let mut value = match base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map_or(Value::NONE, |(_, value)| value.clone())
            }
            Base::Pipeline(pipeline) => {
                let outside = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                self.variables.truncate(outside);
                value
            }
        };
        for name in fields {
            value = self.field(value, name)?;
        }
        Ok(value)
    }

    fn field(&self, value: Value<'a>, name: &str) -> Result<Value<'a>, String> {
        let map = match value.json.as_deref() {
            None => return Ok(Value::NONE),
            Some(Json::Object(map)) => map,
            Some(Json::Null) => return Err(format!("there is nothing that could have a field {name:?}")),
            Some(other) => return Err(format!("can't evaluate field {name} in type {}", print::type_name(other))),
        };
        let anything = self.fields == Fields::Maps || value.is_map;
        let is_map = MAPS.contains(&name);
        let other = match map.contains_key(name) {
            true => None,
            false if anything => return Ok(Value::NONE),
            false => match map.keys().find(|key| key.eq_ignore_ascii_case(name)) {
                Some(key) => Some(key.clone()),
                None => return Err(unknown_field(name, map)),
            },
        };
        Ok(Value { json: value.part(other.as_deref().unwrap_or(name)), is_map })
    }

    /// `.Label "NAME"`
    fn method(
        &mut self,
        base: &'a Base,
        fields: &'a [String],
        operands: &'a [Operand],
        piped: Option<Value<'a>>,
        dot: &Value<'a>,
    ) -> Result<Value<'a>, String> {
        let mut arguments = Vec::new();
        for operand in operands {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(piped);
        let name = fields.last().map_or("", String::as_str);
        match (self.path(base, fields, dot)?.json(), arguments.as_slice()) {
            (Json::Object(labels), [argument]) if name == METHOD => {
                let label = argument.json().as_str().ok_or_else(|| format!("{METHOD} wants the name of a label"))?;
                Ok(Value::owned(labels.get(label).cloned().unwrap_or_else(|| Json::String(String::new()))))
            }
            // As with docker: the heading of a column that shows a label.
            (Json::String(_), [argument]) if name == METHOD && self.fields == Fields::Headings => {
                let label = argument.json().as_str().unwrap_or_default();
                let last = label.rsplit('.').next().unwrap_or_default();
                Ok(Value::owned(last.replace(['-', '_'], " ").into()))
            }
            _ => Err(format!("{name} is no function, and takes no arguments")),
        }
    }
}

fn unknown_field(name: &str, map: &Map<String, Json>) -> String {
    let known: Vec<&str> = map.keys().map(String::as_str).collect();
    format!("can't evaluate field {name}; there are {}", known.join(" "))
}

/// What a `range` goes through: the keys and values of a map in their order, those of a list, so many numbers.
fn items(value: Value<'_>) -> Result<Vec<(Value<'_>, Value<'_>)>, String> {
    let at = |index: usize| Value::owned(index.into());
    let key = |key: &str| Value::owned(key.into());
    Ok(match value.json {
        None => Vec::new(),
        Some(Cow::Borrowed(Json::Array(list))) => {
            list.iter().enumerate().map(|(index, item)| (at(index), Value::borrowed(item))).collect()
        }
        Some(Cow::Borrowed(Json::Object(map))) => map
            .iter()
            .map(|(name, item)| (key(name), Value { is_map: MAPS.contains(&&**name), ..Value::borrowed(item) }))
            .collect(),
        Some(Cow::Owned(Json::Array(list))) => {
            list.into_iter().enumerate().map(|(index, item)| (at(index), Value::owned(item))).collect()
        }
        Some(Cow::Owned(Json::Object(map))) => map.into_iter().map(|(name, item)| (key(&name), Value::owned(item))).collect(),
        Some(other) => match &*other {
            Json::Null => Vec::new(),
            Json::Number(number) if number.is_i64() => {
                let count = usize::try_from(number.as_i64().unwrap_or_default()).unwrap_or_default();
                if count > STEPS_LIMIT {
                    return Err(format!("range: it takes more than {STEPS_LIMIT} steps"));
                }
                (0..count).map(|index| (at(index), at(index))).collect()
            }
            other => return Err(format!("range can't iterate over {}", print::plain(other))),
        },
    })
}
