//! CVSS base scores of versions 3.0 and 3.1 (specification, section 7).

/// The base score of a vector in tenths; none for another version, or a vector that is not whole.
#[must_use]
pub fn base_score(vector: &str) -> Option<u8> {
    let metrics = vector
        .strip_prefix("CVSS:3.1/")
        .or_else(|| vector.strip_prefix("CVSS:3.0/"))?;
    let value = |name: &str| {
        metrics
            .split('/')
            .find_map(|metric| metric.strip_prefix(name)?.strip_prefix(':'))
    };
    let changed = match value("S")? {
        "C" => true,
        "U" => false,
        _ => return None,
    };
    let attack = match value("AV")? {
        "N" => 0.85,
        "A" => 0.62,
        "L" => 0.55,
        "P" => 0.2,
        _ => return None,
    };
    let complexity = match value("AC")? {
        "L" => 0.77,
        "H" => 0.44,
        _ => return None,
    };
    let privileges = match (value("PR")?, changed) {
        ("N", _) => 0.85,
        ("L", false) => 0.62,
        ("L", true) => 0.68,
        ("H", false) => 0.27,
        ("H", true) => 0.5,
        _ => return None,
    };
    let interaction = match value("UI")? {
        "N" => 0.85,
        "R" => 0.62,
        _ => return None,
    };
    let impact = |name| match value(name)? {
        "H" => Some(0.56),
        "L" => Some(0.22),
        "N" => Some(0.0),
        _ => None,
    };
    let lost = 1.0 - (1.0 - impact("C")?) * (1.0 - impact("I")?) * (1.0 - impact("A")?);
    let impact: f64 = if changed {
        7.52 * (lost - 0.029) - 3.25 * (lost - 0.02_f64).powi(15)
    } else {
        6.42 * lost
    };
    if impact <= 0.0 {
        return Some(0);
    }
    let exploitability = 8.22 * attack * complexity * privileges * interaction;
    let sum = impact + exploitability;
    let score = if changed { 1.08 * sum } else { sum };
    Some(rounded_up(score.min(10.0)))
}

/// `Roundup` of appendix A, which is exact where floating point is not.
fn rounded_up(score: f64) -> u8 {
    // At most 1,000,000: exact in both.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1,000,000"
    )]
    let whole = (score * 100_000.0).round() as u32;
    u8::try_from(whole.div_ceil(10_000)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::base_score;

    #[test]
    fn scores_are_those_of_the_examples() {
        // From the specification's own examples document, and its limits.
        for (vector, score) in [
            ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", Some(61)),
            ("CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N", Some(64)),
            ("CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", Some(31)),
            ("CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", Some(98)),
            ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", Some(100)),
            ("CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", Some(78)),
            ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", Some(75)),
            ("CVSS:3.1/AV:P/AC:H/PR:H/UI:R/S:U/C:N/I:N/A:N", Some(0)),
            ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H", None),
            (
                "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N",
                None,
            ),
            ("", None),
        ] {
            assert_eq!(base_score(vector), score, "{vector}");
        }
    }
}
