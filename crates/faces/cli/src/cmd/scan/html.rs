//! What was found, as a page for a browser: one file, without scripts, that asks no other.

use super::Scanned;
use super::report::attacked;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;color:#1c2530}\
h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.35em .6em;border-bottom:1px solid #d8dde3;vertical-align:top}\
th{background:#f2f4f7}td small{color:#5a6672}.critical{color:#8e0b0b;font-weight:700}.high{color:#b7410e;font-weight:700}\
.medium{color:#8a6d00}.low,.negligible,.unknown{color:#4a5866}";

/// The page.
pub(super) fn page(scanned: &[Scanned]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>Known vulnerabilities</title><style>{STYLE}</style></head>\n<body><h1>Known vulnerabilities</h1>\n"
    );
    for one in scanned {
        section(one, &mut page);
    }
    page.push_str(&format!(
        "<p><small>dhow {}</small></p>\n</body></html>\n",
        env!("CARGO_PKG_VERSION")
    ));
    page
}

fn section(one: &Scanned, page: &mut String) {
    let counts: Vec<String> = one
        .count()
        .iter()
        .rev()
        .map(|(level, count)| format!("<span class=\"{0}\">{count} {0}</span>", level.name()))
        .collect();
    let sum = match counts.len() {
        0 => "nothing found".to_owned(),
        _ => counts.join(", "),
    };
    page.push_str(&format!(
        "<h2>{}</h2>\n<p>{} packages looked up: {sum}</p>\n",
        text(&one.target.name),
        one.scan.looked_up
    ));
    for end in &one.ends {
        let end = format!("{}: {}, {}", end.what, end.state, end.until);
        page.push_str(&format!("<p>{}</p>\n", text(&end)));
    }
    let inventory = &one.target.contents.inventory;
    if !one.scan.found.is_empty() {
        let heads = [
            "Vulnerability",
            "Severity",
            "Attacks",
            "Package",
            "Installed",
            "Fixed in",
            "State",
            "Brought by",
        ];
        head(&heads, page);
        for vulnerable in &one.scan.found {
            let installed = &inventory.packages[vulnerable.package];
            let finding = &vulnerable.finding;
            let by = one.brought.get(installed.layer).unwrap_or(&installed.path);
            let level = finding.severity.level.name();
            let about = format!(
                "{}<br><small>{}</small>",
                text(finding.advisory.known_as()),
                text(&finding.advisory.summary)
            );
            row(
                &[
                    about,
                    format!("<span class=\"{level}\">{level}</span>"),
                    text(&attacked(&finding.exploit)),
                    text(&installed.package.name),
                    text(&installed.package.version),
                    text(finding.fixed.as_deref().unwrap_or("")),
                    finding.state.name().to_owned(),
                    text(by),
                ],
                page,
            );
        }
        page.push_str("</table>\n");
    }
    if !one.scan.suppressed.is_empty() {
        page.push_str("<h3>Suppressed</h3>\n");
        head(&["Vulnerability", "Package", "Why"], page);
        for suppressed in &one.scan.suppressed {
            let installed = &inventory.packages[suppressed.vulnerable.package];
            let name = suppressed.vulnerable.finding.advisory.known_as();
            row(
                &[text(name), text(&installed.package.name), text(&suppressed.why())],
                page,
            );
        }
        page.push_str("</table>\n");
    }
}

fn head(heads: &[&str], page: &mut String) {
    page.push_str("<table><tr>");
    for head in heads {
        page.push_str(&format!("<th>{head}</th>"));
    }
    page.push_str("</tr>\n");
}

fn row(cells: &[String], page: &mut String) {
    page.push_str("<tr>");
    for cell in cells {
        page.push_str(&format!("<td>{cell}</td>"));
    }
    page.push_str("</tr>\n");
}

/// Text of an image or an advisory, which may be anything.
pub(in crate::cmd) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char => out.push(char),
        }
    }
    out
}
