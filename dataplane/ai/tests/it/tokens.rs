//! Counting where nobody reports: section 9 of the rules.

use dataplane_ai::json::Text;
use dataplane_ai::token::{
    ANSWER_BYTES_MAX, EXACT_BYTES_MAX, METER_BYTES_MAX, Meter, Usage, count, of_answer, of_request,
};
use ir::ai::AiPrice;

const SENTENCE: &str = "The quick brown fox jumps over the lazy dog. ";

#[test]
fn texts_are_counted_with_the_models_vocabulary() {
    assert_eq!(count("gpt-4o", "hello world"), 2);
    assert_eq!(count("gpt-4", "hello world"), 2);
    // The newer vocabulary knows more languages.
    let german = "Donaudampfschifffahrtsgesellschaft, Größenordnung, Überraschung";
    assert!(count("gpt-4o", german) < count("gpt-4", german));
    assert_eq!(
        count("openai/gpt-4-turbo", german),
        count("gpt-3.5-turbo", german)
    );
    assert_eq!(count("claude-opus-4-5", german), count("gpt-5", german));
    assert_eq!(count("gpt-4o", ""), 0);
}

#[test]
fn a_short_chat_is_counted_as_openai_counts_it() {
    let body =
        r#"{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"seed":5,"user":null}"#;
    assert_eq!(of_request("gpt-4o", body), 8);
}

#[test]
fn tools_and_images_are_not_forgotten() {
    let chat = |content: &str, more: &str| {
        of_request(
            "gpt-4o",
            &format!(r#"{{"messages":[{{"role":"user","content":{content}}}]{more}}}"#),
        )
    };
    let plain = chat(r#""hi""#, "");
    let tools = chat(
        r#""hi""#,
        r#","tools":[{"type":"function","function":{"name":"weather","description":"tells the weather","parameters":{"type":"object","properties":{"city":{"type":"string","description":"where"}}}}}]"#,
    );
    assert!(tools > plain + 15, "{tools}");
    let image = |detail: &str| {
        chat(
            &format!(
                r#"[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}","detail":"{detail}"}}}}]"#,
                "A".repeat(100_000)
            ),
            "",
        )
    };
    assert!((700..900).contains(&image("high")), "{}", image("high"));
    assert!((80..120).contains(&image("low")), "{}", image("low"));
}

#[test]
fn long_texts_are_projected_closely() {
    let text = SENTENCE.repeat(2 * EXACT_BYTES_MAX / SENTENCE.len());
    let exact = 2 * count("gpt-4o", &text[..text.len() / 2]);
    let projected = count("gpt-4o", &text);
    assert!(
        projected.abs_diff(exact) * 100 < exact,
        "{projected} of {exact}"
    );
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    assert!(of_request("gpt-4o", &body).abs_diff(exact) * 50 < exact);
}

#[test]
fn long_answers_are_projected_from_their_begin_however_they_are_written() {
    let text = SENTENCE.repeat(20 * ANSWER_BYTES_MAX / SENTENCE.len());
    let exact = count("gpt-4o", &text);
    let escaped: String = text
        .chars()
        .map(|c| format!("\\u{:04x}", c as u32))
        .collect();
    let halves = text.split_at(text.len() / 2);
    for content in [
        format!("\"{text}\""),
        format!("\"{escaped}\""),
        format!(r#"[{{"text":"{}"}},{{"text":"{}"}}]"#, halves.0, halves.1),
    ] {
        let body = format!(r#"{{"id":"c","choices":[{{"message":{{"content":{content}}}}}]}}"#);
        let found = of_answer("gpt-4o", &body);
        assert!(found.abs_diff(exact) * 50 < exact, "{found} of {exact}");
    }
    let short = format!(r#"{{"choices":[{{"message":{{"content":"{SENTENCE}"}}}}]}}"#);
    assert_eq!(of_answer("gpt-4o", &short), of_request("gpt-4o", &short));
}

#[test]
fn an_answer_that_went_by_in_pieces_is_counted_like_the_whole() {
    let text = SENTENCE.repeat(100);
    let mut meter = Meter::default();
    for piece in text.split_inclusive(' ') {
        meter.see(&Text::new(piece));
    }
    assert!(text.len() < METER_BYTES_MAX);
    assert_eq!(meter.tokens("gpt-4o"), count("gpt-4o", &text));
    for piece in text.repeat(9).split_inclusive(' ') {
        meter.see(&Text::new(piece));
    }
    let (found, exact) = (meter.tokens("gpt-4o"), 10 * count("gpt-4o", &text));
    assert!(found.abs_diff(exact) * 50 < exact, "{found} of {exact}");
    assert_eq!(Meter::default().tokens("gpt-4o"), 0);
}

#[test]
fn counts_replace_counts_and_cached_tokens_have_their_price() {
    let mut usage = Usage {
        input: Some(100),
        output: Some(1),
        ..Usage::default()
    };
    usage.update(&Usage {
        output: Some(50),
        cached: Some(40),
        ..Usage::default()
    });
    assert_eq!((usage.total(), usage.cached), (150, Some(40)));
    let mut price = AiPrice {
        input: 10.0,
        cached_input: Some(1.0),
        output: 100.0,
    };
    let cents = |usage: &Usage, price: &AiPrice| (usage.cost(price) * 1e6).round();
    assert_eq!(cents(&usage, &price), 600.0 + 40.0 + 5000.0);
    price.cached_input = None;
    assert_eq!(cents(&usage, &price), 1000.0 + 5000.0);
}
