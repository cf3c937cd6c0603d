//! The tree, filled in.

use serde_json::{Map, Value};

use super::Fault;
use super::functions;
use super::parse::{Base, Node, Operand, Pipe};

/// Most nodes and operands that one filling evaluates.
const MAX_STEPS: usize = 4_000_000;
/// Longest output.
const MAX_OUTPUT: usize = 64 << 20;

/// Names of objects of docker's that are maps: a key that they lack is no mistake of the person's.
const MAPS: [&str; 16] = [
    "Labels",
    "Options",
    "Networks",
    "Ports",
    "Volumes",
    "ExposedPorts",
    "Annotations",
    "Sysctls",
    "Tmpfs",
    "Data",
    "Containers",
    "Config",
    "LogConfig",
    "PortBindings",
    "Metadata",
    "DriverOpts",
];
/// Fields that docker leaves out when there is nothing to say.
const OPTIONAL: [&str; 9] = [
    "Health",
    "Healthcheck",
    "GraphDriver",
    "SizeRw",
    "SizeRootFs",
    "Shell",
    "StopTimeout",
    "StopSignal",
    "OnBuild",
];

enum Flow {
    On,
    Break,
    Continue,
}

pub(super) fn fill(
    nodes: &[Node],
    data: &Value,
    labels: Option<&Map<String, Value>>,
) -> Result<String, Fault> {
    let mut filling = Filling {
        out: String::new(),
        variables: vec![(String::new(), data.clone())],
        labels,
        steps: 0,
        root: data,
    };
    filling.nodes(nodes, data)?;
    Ok(filling.out)
}

struct Filling<'a> {
    out: String,
    variables: Vec<(String, Value)>,
    labels: Option<&'a Map<String, Value>>,
    steps: usize,
    root: &'a Value,
}

impl Filling<'_> {
    fn step(&mut self, at: usize) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps > MAX_STEPS || self.out.len() > MAX_OUTPUT {
            return Err(Fault::new(at, "the template does too much"));
        }
        Ok(())
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Fault> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.step(0)?;
                    self.out.push_str(text);
                    Flow::On
                }
                Node::Action(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        functions::show(&value, &mut self.out);
                    }
                    Flow::On
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
                block => {
                    let depth = self.variables.len();
                    let flow = self.block(block, dot)?;
                    self.variables.truncate(depth);
                    flow
                }
            };
            if !matches!(flow, Flow::On) {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn block(&mut self, node: &Node, dot: &Value) -> Result<Flow, Fault> {
        match node {
            Node::If { branches, otherwise } => {
                for (pipe, body) in branches {
                    if functions::truth(&self.pipe(pipe, dot)?) {
                        return self.nodes(body, dot);
                    }
                }
                self.nodes(otherwise, dot)
            }
            Node::With {
                pipe,
                body,
                otherwise,
            } => {
                let value = self.pipe(pipe, dot)?;
                if functions::truth(&value) {
                    self.nodes(body, &value)
                } else {
                    self.nodes(otherwise, dot)
                }
            }
            Node::Range {
                pipe,
                body,
                otherwise,
            } => self.range(pipe, body, otherwise, dot),
            Node::Text(_) | Node::Action(_) | Node::Break | Node::Continue => Ok(Flow::On),
        }
    }

    fn range(&mut self, pipe: &Pipe, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<Flow, Fault> {
        let value = self.pipe_value(pipe, dot)?;
        let items: Vec<(Value, Value)> = match value {
            Value::Null => Vec::new(),
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (index.into(), item))
                .collect(),
            Value::Object(fields) => {
                let mut items: Vec<_> = fields.into_iter().collect();
                items.sort_by(|a, b| a.0.cmp(&b.0));
                items.into_iter().map(|(key, item)| (key.into(), item)).collect()
            }
            Value::Number(number) if number.as_u64().is_some_and(|n| n <= 1 << 16) => {
                (0..number.as_u64().unwrap_or(0))
                    .map(|n| (n.into(), n.into()))
                    .collect()
            }
            other => {
                return Err(Fault::new(
                    pipe.at,
                    format!("range can't iterate over {}", functions::text(&other)),
                ));
            }
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let depth = self.variables.len();
        for (key, item) in items {
            self.step(pipe.at)?;
            match pipe.variables.as_slice() {
                [] => {}
                [one] if pipe.assign => self.assign(one, item.clone()),
                [one] => self.variables.push((one.clone(), item.clone())),
                [first, second, ..] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(depth);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn assign(&mut self, name: &str, value: Value) {
        if let Some((_, place)) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            *place = value;
        }
    }

    /// The value of a pipe; its variables get it.
    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, Fault> {
        let value = self.pipe_value(pipe, dot)?;
        if let [name, ..] = pipe.variables.as_slice() {
            if pipe.assign {
                self.assign(name, value.clone());
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn pipe_value(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, Fault> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Value::Null))
    }

    fn command(&mut self, operands: &[Operand], piped: Option<Value>, dot: &Value) -> Result<Value, Fault> {
        let (first, rest) = operands
            .split_first()
            .ok_or_else(|| Fault::new(0, "an empty command"))?;
        if let Base::Function(name) = &first.base {
            self.step(first.at)?;
            let mut arguments = Vec::with_capacity(rest.len() + 1);
            for operand in rest {
                let value = self.operand(operand, dot)?;
                // Go stops at the first argument that decides (since 1.18).
                let decided = functions::truth(&value) == (name == "or");
                if matches!(name.as_str(), "and" | "or") && decided {
                    return Ok(value);
                }
                arguments.push(value);
            }
            arguments.extend(piped);
            return functions::call(name, &arguments)
                .map_err(|message| Fault::new(first.at, format!("error calling {name}: {message}")));
        }
        if rest.is_empty() && piped.is_none() {
            return self.operand(first, dot);
        }
        // The one method that rows have.
        if let (Base::Dot, [name]) = (&first.base, first.fields.as_slice())
            && name == "Label"
            && let Some(labels) = self.labels
        {
            let wanted = match (rest, piped) {
                ([one], None) => self.operand(one, dot)?,
                ([], Some(value)) => value,
                _ => return Err(Fault::new(first.at, "wrong number of args for Label: want 1")),
            };
            let label = wanted.as_str().and_then(|name| labels.get(name)).cloned();
            return Ok(label.unwrap_or_else(|| Value::String(String::new())));
        }
        Err(Fault::new(first.at, "can't give argument to non-function"))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Fault> {
        self.step(operand.at)?;
        let group;
        let variable;
        let base = match &operand.base {
            Base::Dot => dot,
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                variable = found.map_or(Value::Null, |(_, value)| value.clone());
                &variable
            }
            Base::Function(name) => {
                return functions::call(name, &[])
                    .map_err(|message| Fault::new(operand.at, format!("error calling {name}: {message}")));
            }
            Base::Literal(value) => value,
            Base::Nil => &Value::Null,
            Base::Group(pipe) => {
                group = self.pipe_value(pipe, dot)?;
                &group
            }
        };
        let typed =
            std::ptr::eq(base, self.root) || matches!(&operand.base, Base::Variable(name) if name.is_empty());
        fields(base, operand, typed)
    }
}

/// Follows fields. In docker's own structures an unknown one is an error; in maps it is no value.
/// The field of this name in other letters' case.
fn any_case<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn fields(base: &Value, operand: &Operand, typed: bool) -> Result<Value, Fault> {
    let mut value = base;
    let mut parent = "";
    let mut strict = typed;
    for name in &operand.fields {
        value = match value {
            Value::Object(map) => match map.get(name) {
                Some(value) => value,
                // Podman's fields are `ID` where its JSON has `Id`.
                None if any_case(map, name).is_some() => any_case(map, name).unwrap_or(&Value::Null),
                None if strict && !OPTIONAL.contains(&name.as_str()) => {
                    return Err(Fault::new(
                        operand.at,
                        format!("can't evaluate field {name}: there is none of this name"),
                    ));
                }
                None => &Value::Null,
            },
            Value::Null => {
                return Err(Fault::new(
                    operand.at,
                    format!("nil pointer evaluating {parent}.{name}"),
                ));
            }
            other => {
                let message = format!("can't evaluate field {name} of {}", functions::text(other));
                return Err(Fault::new(operand.at, message));
            }
        };
        parent = name;
        // Below a map there may be anything.
        strict = strict && !MAPS.contains(&parent);
    }
    Ok(value.clone())
}
