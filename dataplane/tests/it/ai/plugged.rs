//! Plugins at an AI service: they see its answers, whole or in pieces.

use crate::plugins::{MARKS, module, plugin};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn answers_pass_the_plugins_that_the_call_met() {
    let (whole, piece) = (r#"{"choices":[]}"#, "data: {\"choices\":[]}\n\n");
    let answers = [
        Answer::json(200, whole),
        Answer::stream(
            "text/event-stream",
            &format!("{piece}data: [DONE]\n\n"),
            4096,
        ),
        Answer::json(400, r#"{"error":{"message":"no"}}"#),
    ];
    let provider = Provider::start(answers).await;
    let mut case = Case::new(service(AiProvider::OpenAi, &provider));
    let marks = plugin("shop/p", module(MARKS));
    case.cluster.plugins = [marks.key.clone()].into();
    let mut snapshot = case.snapshot("v1");
    snapshot.wasm_plugins.insert(marks);
    let _gateway = Gateway::serving(&snapshot).await;
    for (stream, status) in [(false, 200), (true, 200), (false, 400)] {
        let ask = format!(
            r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        let answer = case.chat(&ask).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("x-seen"), "1");
        let told = answer.text().to_string();
        assert!(told.starts_with('~'), "{told}");
        let marked = told.matches('~').count();
        assert_eq!(told.contains("~data: [DONE]"), stream, "{told}");
        assert!(marked == 1 || stream, "{told}");
    }
}
