//! Tests of filters as they are written.

use serde_json::json;

use super::*;

fn parse(text: &str) -> Filter {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn values_in_quotes_may_contain_separators() {
    let not = |filter| Filter::Not(Box::new(filter));
    let cases = [
        ("a=b", vec![Filter::equals("a", "b")]),
        (" a = b c , d != e ", vec![Filter::equals("a", "b c"), not(Filter::equals("d", "e"))]),
        (r#"a="b, c",d=1"#, vec![Filter::equals("a", "b, c"), Filter::equals("d", 1)]),
        (r#""a,=!" != " \u00e5\"\n" "#, vec![not(Filter::equals("a,=!", " å\"\n"))]),
        (r#"a="1",b="true""#, vec![Filter::equals("a", "1"), Filter::equals("b", "true")]),
        ("a=b=c", vec![Filter::equals("a", "b=c")]),
        ("a=", vec![Filter::equals("a", "")]),
        (r#"a=5" disk"#, vec![Filter::equals("a", "5\" disk")]),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), Filter::All(expected), "{text}");
    }
}

#[test]
fn numbers_keep_their_digits() {
    let cases = [
        ("n=5", Filter::equals("n", 5)),
        ("n=5.0", Filter::equals("n", 5.0)),
        ("n=5.00", Filter::Any(vec![Filter::equals("n", 5.0), Filter::equals("n", "5.00")])),
        ("n=true", Filter::equals("n", true)),
        ("n=18446744073709551615", Filter::equals("n", u64::MAX)),
        ("n=18446744073709551616", Filter::equals("n", "18446744073709551616")),
        ("n=-9223372036854775809", Filter::equals("n", "-9223372036854775809")),
        ("n=007", Filter::equals("n", "007")),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), Filter::All(vec![expected]), "{text}");
    }
}

#[test]
fn malformed_filters_are_refused() {
    for text in ["", "a", ",", "a=b,", "=b", "!=b", "a!b", r#"a="b"#, r#"a="b"c"#, r#""a"b=c"#] {
        let error = text.parse::<Filter>().unwrap_err();
        assert!(error.to_string().contains("of the form field=value"), "{text}: {error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn equal_numbers_have_equal_forms() {
    let form = |value: Json| indexed_forms(value.as_number().unwrap());
    for (value, integer) in [(json!(5.0), json!(5)), (json!(-0.0), json!(0)), (json!(-3.0), json!(-3))] {
        assert_eq!(form(value)[0], form(integer)[0]);
    }
    assert!(form(json!(9_223_372_036_854_775_808.0)).contains(&NumericalValue::U64(1 << 63)));
    assert_eq!(form(json!(0.5)), [NumericalValue::F64(0.5)]);
}
