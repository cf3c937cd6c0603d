//! Lists of things: docker's table, `--quiet`, `--format`.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::table;
use super::template::Template;
use crate::{CliError, dialect};

/// What a kind of list has: each field with the header of its column.
pub(crate) type Fields = &'static [(&'static str, &'static str)];

/// One thing of a list, in docker's words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// Few: they are found by looking through them, and sorted by name only for JSON.
    fields: Vec<(Cow<'static, str>, Value)>,
    labels: Map<String, Value>,
    /// The same thing in another dialect, whole.
    document: Option<Value>,
}

impl Row {
    /// A row of these fields. They are named in alphabetical order, as docker's JSON has them.
    pub(crate) fn new<const N: usize>(fields: [(&'static str, Value); N]) -> Self {
        Self::of(fields)
    }

    /// The same of any number of fields.
    pub(crate) fn of(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let fields = fields
            .into_iter()
            .map(|(name, value)| (Cow::Borrowed(name), value));
        Self {
            fields: fields.collect(),
            ..Self::default()
        }
    }

    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Value {
        self.get(name).cloned().unwrap_or_default()
    }

    /// The same with one field more, or another value of it.
    pub(crate) fn with_field(mut self, name: impl Into<Cow<'static, str>>, value: Value) -> Self {
        let name = name.into();
        match self.fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.fields.push((name, value)),
        }
        self
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value)
    }

    fn map(&self) -> Map<String, Value> {
        let fields = self.fields.iter();
        fields
            .map(|(name, value)| (name.clone().into_owned(), value.clone()))
            .collect()
    }

    /// The same with labels for `{{.Label "name"}}`.
    pub(crate) fn with_labels<'a>(
        mut self,
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let pairs = labels
            .into_iter()
            .map(|(name, value)| (name.clone(), value.as_str().into()));
        self.labels = pairs.collect();
        self
    }

    /// The same with a document: what JSON shows, and what templates find beside the fields.
    pub(crate) fn with_document(mut self, document: Value) -> Self {
        self.document = Some(document);
        self
    }

    /// What a template is filled with. Labels are a map there when the document has them so.
    fn data(&self) -> Value {
        let mut fields = self.map();
        if let Some(Value::Object(document)) = &self.document {
            for (name, value) in document {
                if name == "Labels" || !fields.contains_key(name) {
                    fields.insert(name.clone(), value.clone());
                }
            }
        }
        fields.into()
    }

    fn json(&self) -> Value {
        self.document.clone().unwrap_or_else(|| self.map().into())
    }

    fn cell(&self, field: &str) -> &str {
        self.get(field).and_then(Value::as_str).unwrap_or("")
    }

    /// One field's text.
    pub(crate) fn text(&self, field: &str) -> String {
        self.cell(field).to_owned()
    }
}

/// How a list is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look<'a> {
    /// All fields with their headers.
    pub(crate) fields: Fields,
    /// The fields of the usual table.
    pub(crate) table: &'a [&'static str],
    /// `--format`.
    pub(crate) format: Option<&'a str>,
    /// `--quiet`: only this field.
    pub(crate) quiet: Option<&'static str>,
    /// Whether a table goes without its headers.
    pub(crate) bare: bool,
}

impl Look<'_> {
    /// The whole text.
    pub(crate) fn show(&self, rows: &[Row]) -> Result<String, CliError> {
        if let Some(field) = self.quiet
            && self.format.is_none()
        {
            return Ok(rows.iter().map(|row| format!("{}\n", row.cell(field))).collect());
        }
        match self.format {
            None | Some("" | "table") => Ok(self.usual(rows)),
            Some("json") => Ok(dialect::spoken().json_list(rows.iter().map(Row::json))),
            Some(format) => self.formatted(format, rows),
        }
    }

    fn usual(&self, rows: &[Row]) -> String {
        let mut text = String::new();
        if !self.bare {
            let headers: Vec<_> = self.table.iter().map(|field| self.header(field)).collect();
            text.push_str(&headers.join("\t"));
            text.push('\n');
        }
        for row in rows {
            for (index, field) in self.table.iter().enumerate() {
                if index > 0 {
                    text.push('\t');
                }
                text.push_str(row.cell(field));
            }
            text.push('\n');
        }
        table::align(&text)
    }

    fn header(&self, field: &str) -> &'static str {
        self.fields
            .iter()
            .find(|(name, _)| *name == field)
            .map_or("", |(_, header)| header)
    }

    /// A template of the person's, in a table when it begins with that word (docker/cli `formatter.go`).
    fn formatted(&self, format: &str, rows: &[Row]) -> Result<String, CliError> {
        let body = format
            .strip_prefix("table")
            .filter(|rest| rest.starts_with([' ', '\t']) || rest.starts_with(r"\t"));
        let text = body
            .map_or_else(
                || format.to_owned(),
                |body| dialect::spoken().columns(body.trim()),
            )
            .replace(r"\t", "\t")
            .replace(r"\n", "\n");
        let template = Template::parse(&text).map_err(bad)?;
        let mut out = String::new();
        if body.is_some() && !self.bare {
            let headers: Map<String, Value> = self
                .fields
                .iter()
                .map(|(name, header)| ((*name).to_owned(), (*header).into()))
                .collect();
            out.push_str(
                &template
                    .fill(&headers.into(), Some(&label_headers(&text)))
                    .map_err(bad)?,
            );
            out.push('\n');
        }
        for row in rows {
            out.push_str(&template.fill(&row.data(), Some(&row.labels)).map_err(bad)?);
            out.push('\n');
        }
        Ok(if body.is_some() { table::align(&out) } else { out })
    }
}

/// Headers of `{{.Label "com.example.some-name"}}`: `some name` (docker/cli `formatter/container.go`).
fn label_headers(text: &str) -> Map<String, Value> {
    let names = text
        .split(".Label")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    names
        .map(|name| {
            let last = name.rsplit('.').next().unwrap_or(name);
            (name.to_owned(), last.replace(['-', '_'], " ").into())
        })
        .collect()
}

fn bad(error: super::template::TemplateError) -> CliError {
    CliError::plain(error.to_string()).with_code(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields = &[("ID", "CONTAINER ID"), ("Names", "NAMES")];

    fn rows() -> Vec<Row> {
        let labels = [("com.x.my-team".to_owned(), "blue".to_owned())]
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>();
        vec![
            Row::new([("ID", "abc".into()), ("Names", "web".into())]).with_labels(&labels),
            Row::new([("ID", "def".into()), ("Names", "<db>".into())]),
        ]
    }

    fn show(format: Option<&str>, quiet: Option<&'static str>) -> String {
        Look {
            fields: FIELDS,
            table: &["ID", "Names"],
            format,
            quiet,
            ..Look::default()
        }
        .show(&rows())
        .unwrap()
    }

    #[test]
    fn the_usual_table_quiet_and_json() {
        assert_eq!(
            show(None, None),
            "CONTAINER ID   NAMES\nabc            web\ndef            <db>\n"
        );
        assert_eq!(show(Some("table"), None), show(None, None));
        assert_eq!(show(None, Some("ID")), "abc\ndef\n");
        assert_eq!(
            show(Some("json"), None),
            "{\"ID\":\"abc\",\"Names\":\"web\"}\n{\"ID\":\"def\",\"Names\":\"<db>\"}\n"
        );
        assert_eq!(show(Some("{{json .}}"), None), show(Some("json"), None));
    }

    #[test]
    fn a_format_may_be_a_table_of_its_own() {
        assert_eq!(
            show(Some(r"table {{.Names}}\t{{.ID}}"), None),
            "NAMES     CONTAINER ID\nweb       abc\n<db>      def\n"
        );
        assert_eq!(
            show(Some(r#"table {{.ID}}\t{{.Label "com.x.my-team"}}"#), None),
            "CONTAINER ID   my team\nabc            blue\ndef            \n"
        );
        assert_eq!(show(Some("{{.ID}}:{{.Names}}"), None), "abc:web\ndef:<db>\n");
    }

    #[test]
    fn a_wrong_field_is_an_error_even_without_rows() {
        let look = Look {
            fields: FIELDS,
            table: &["ID"],
            format: Some("table {{.Nope}}"),
            quiet: None,
            bare: false,
        };
        assert!(look.show(&[]).is_err());
    }
}
