//! The page of every field, made from a CustomResourceDefinition: `docs/reference.md`.

use std::{collections::BTreeMap, fmt::Write as _};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};

/// A page of Markdown: a section for each part of the object, and a line for each field.
pub fn markdown(definition: &CustomResourceDefinition) -> String {
    let mut page = String::new();
    for version in &definition.spec.versions {
        let kind = &definition.spec.names.kind;
        let _ = write!(
            page,
            "# {kind}, {}/{}\n\n<!-- Made of the types in src/api by make reference. -->\n\nA field has the default that is \
             given, or has to be set (\"required\"), or may be left out. What the API server refuses follows its meaning in \
             parentheses, in the words of the refusal.\n",
            definition.spec.group, version.name,
        );
        let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let parts = schema.and_then(|schema| schema.properties.as_ref());
        for name in ["spec", "status"] {
            if let Some(part) = parts.and_then(|parts| parts.get(name)) {
                section(&mut page, name, part);
            }
        }
    }
    page
}

/// The fields of `spec` or `status`, those of each child in a table of their own.
fn section(page: &mut String, name: &str, part: &JSONSchemaProps) {
    let children = part.properties.iter().flatten();
    let (deep, flat): (Vec<_>, Vec<_>) = children.partition(|(_, child)| !fields(child).is_empty());
    let _ = write!(page, "\n## {name}\n\n{}\n", meaning(part));
    table(page, &flat, part);
    for (child_name, child) in deep {
        let required = if is_required(part, child_name) { " Required." } else { "" };
        let _ = write!(page, "\n### {name}.{child_name}\n\n{}{required}\n", meaning(child));
        let fields: Vec<_> = fields(child).iter().collect();
        table(page, &fields, child);
    }
}

fn table(page: &mut String, fields: &[(&String, &JSONSchemaProps)], parent: &JSONSchemaProps) {
    if fields.is_empty() {
        return;
    }
    page.push_str("\n| field | type | default | meaning |\n| --- | --- | --- | --- |\n");
    rows(page, fields, "", parent, &mut Vec::new());
}

/// A line for each field and for those in it. Fields that are the same as others above are named once.
fn rows<'a>(
    page: &mut String,
    children: &[(&'a String, &'a JSONSchemaProps)],
    path: &str,
    parent: &JSONSchemaProps,
    told: &mut Vec<(&'a BTreeMap<String, JSONSchemaProps>, String)>,
) {
    for &(name, child) in children {
        let path = format!("{path}{name}");
        let fields = fields(child);
        let same = told.iter().find(|(told, _)| *told == fields).map(|(_, path)| path.clone());
        let more =
            same.as_ref().map_or_else(String::new, |path| format!(" Its fields are those of `{path}`."));
        let default = match &child.default {
            Some(default) if fields.is_empty() => format!("`{}`", default.0.to_string().trim_matches('"')),
            None if is_required(parent, name) => "required".to_owned(),
            _ => String::new(),
        };
        let meaning = (meaning(child) + &more).replace('|', "\\|");
        let _ = writeln!(page, "| `{path}` | {} | {default} | {meaning} |", type_of(child));
        if same.is_none() && !fields.is_empty() {
            told.push((fields, path.clone()));
            let list = if child.type_.as_deref() == Some("array") { "[]." } else { "." };
            let inner = items(child).unwrap_or(child);
            rows(page, &fields.iter().collect::<Vec<_>>(), &(path + list), inner, told);
        }
    }
}

/// Those of an object, or of the objects in a list.
fn fields(schema: &JSONSchemaProps) -> &BTreeMap<String, JSONSchemaProps> {
    static NONE: BTreeMap<String, JSONSchemaProps> = BTreeMap::new();
    items(schema).unwrap_or(schema).properties.as_ref().unwrap_or(&NONE)
}

fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
        _ => None,
    }
}

fn is_required(parent: &JSONSchemaProps, name: &str) -> bool {
    parent.required.iter().flatten().any(|required| required == name)
}

/// What may stand there.
fn type_of(schema: &JSONSchemaProps) -> String {
    if let Some(items) = items(schema) {
        let count =
            range(schema.min_items, schema.max_items).map_or_else(String::new, |range| format!(", {range}"));
        return format!("list of {}{count}", type_of(items));
    }
    if let Some(values) = &schema.enum_ {
        let values: Vec<_> =
            values.iter().map(|value| format!("`{}`", value.0.to_string().trim_matches('"'))).collect();
        return values.join(", ");
    }
    let name = match (schema.type_.as_deref(), schema.format.as_deref()) {
        (_, Some("date-time")) => "time",
        (name, _) => name.unwrap_or_default(),
    };
    let length = range(schema.min_length, schema.max_length).map(|range| format!("{range} characters"));
    let bounds = range(schema.minimum, schema.maximum).or(length);
    bounds.map_or_else(|| name.to_owned(), |bounds| format!("{name}, {bounds}"))
}

fn range<T: ToString>(least: Option<T>, most: Option<T>) -> Option<String> {
    match (least.map(|least| least.to_string()), most.map(|most| most.to_string())) {
        (Some(least), Some(most)) => Some(format!("{least}-{most}")),
        (Some(least), None) => Some(format!("at least {least}")),
        (None, Some(most)) => Some(format!("at most {most}")),
        (None, None) => None,
    }
}

/// Its description, and what is said when a rule is broken.
fn meaning(schema: &JSONSchemaProps) -> String {
    let text = schema.description.as_deref().unwrap_or_default();
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let rules = schema.x_kubernetes_validations.iter().flatten().filter_map(|rule| rule.message.as_deref());
    let rules: Vec<_> = rules.collect();
    if !rules.is_empty() {
        let _ = write!(text, " ({})", rules.join("; "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1alpha1::custom_resource_definition;

    #[test]
    fn the_page_comes_from_the_types() {
        let page = markdown(&custom_resource_definition());
        let kept = include_str!("../../docs/reference.md");
        assert!(page == kept, "docs/reference.md is not what the types say: run `make reference`");
    }

    #[test]
    fn a_line_tells_type_default_bounds_and_rules() {
        let page = markdown(&custom_resource_definition());
        for line in [
            "| `timeoutSeconds` | integer, 1-60 | `10` | Time for a whole attempt, seconds. |",
            "| `new` | object |  | The client certificate that is to replace it. Its fields are those of `active`. |",
            "| `rotation.promotion` | `Automatic`, `Manual` | `Automatic` | When the new certificate becomes the one in use. |",
        ] {
            assert!(page.lines().any(|found| found == line), "no line {line}\n{page}");
        }
        assert!(page.contains("must not have a fragment: it is never sent"), "{page}");
    }
}
