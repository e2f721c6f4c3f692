//! Answers of `/api/chat`, whole ones and in pieces.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::chat::{Finish, Part, Response, Step, ToolCall};
use crate::event_stream::Frame;
use crate::failure::{Failure, FailureReason};
use crate::json::{self, Kind, Text};
use crate::provider::openai::request::arguments_object;
use crate::token::Usage;

/// Calls of tools in one answer; more is no answer but an attack on memory.
const TOOL_CALLS_MAX: u32 = 1024;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    model: Option<Text<'a>>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(default)]
    done: bool,
    #[serde(borrow, default)]
    done_reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    prompt_eval_count: Option<&'a RawValue>,
    #[serde(borrow, default)]
    eval_count: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<Text<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<Call<'a>>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    function: Function<'a>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

impl Function<'_> {
    /// An object; some versions write it as a string.
    fn object(&self) -> Option<String> {
        match self.arguments {
            None => Some("{}".to_owned()),
            Some(raw) => match json::kind(raw) {
                Kind::Object => Some(raw.get().to_owned()),
                Kind::Null => Some("{}".to_owned()),
                Kind::String => arguments_object(&Text::of(raw)?),
                _ => None,
            },
        }
    }
}

impl Line<'_> {
    fn usage(&self) -> Option<Usage> {
        let input = self.prompt_eval_count.and_then(json::count);
        let output = self.eval_count.and_then(json::count);
        (input.is_some() || output.is_some()).then(|| Usage {
            input,
            output,
            ..Usage::default()
        })
    }

    /// With calls of tools Ollama says `stop`, too.
    fn finish(&self, has_calls: bool) -> Finish<'static> {
        match self.done_reason.as_ref().map(Text::raw) {
            Some("length") => Finish::Length,
            _ if has_calls => Finish::ToolCalls,
            _ => Finish::Stop,
        }
    }
}

/// Reads a whole answer.
pub(crate) fn read(body: &str) -> Result<Response<'_>, Failure> {
    let bad =
        |what: &str| Failure::bad_answer(format!("the provider's answer cannot be read: {what}"));
    let line: Line<'_> = serde_json::from_str(body).map_err(|error| bad(&error.to_string()))?;
    let usage = line.usage();
    let mut parts = Vec::new();
    let mut has_calls = false;
    let Some(message) = &line.message else {
        return Err(bad("it holds no message"));
    };
    let prose = |text: &Option<Text<'_>>| {
        text.clone()
            .filter(|text| !text.is_empty())
            .map(Text::into_owned)
    };
    parts.extend(prose(&message.thinking).map(Part::Thinking));
    parts.extend(prose(&message.content).map(Part::Text));
    for call in message.tool_calls.iter().flatten() {
        has_calls = true;
        let arguments = call.function.object();
        parts.push(Part::ToolCall(ToolCall {
            id: call.id.clone().unwrap_or_default().into_owned(),
            name: call.function.name.clone().into_owned(),
            arguments: arguments.ok_or_else(|| bad("the arguments of a call are no object"))?,
        }));
    }
    Ok(Response {
        id: None,
        finish: line.finish(has_calls),
        model: line.model,
        parts,
        is_refusal: false,
        usage,
    })
}

/// Reads a stream of lines.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    has_begun: bool,
    calls: u32,
}

impl Decoder {
    /// Reads one line.
    pub(crate) fn frame(&mut self, frame: &Frame, step: &mut dyn FnMut(Step<'_>)) {
        if frame.data.is_empty() {
            return;
        }
        let Ok(line) = serde_json::from_slice::<Line<'_>>(&frame.data) else {
            let message = "the provider's stream holds a line that cannot be read";
            return step(Step::Failed(Failure::bad_answer(message)));
        };
        if let Some(error) = line.error {
            let mut failure = Failure::bad_answer(error.get());
            failure.reason = FailureReason::Provider;
            if let Some(text) = Text::of(error) {
                failure.message = text.plain().into_owned();
            }
            return step(Step::Failed(failure));
        }
        if !self.has_begun {
            self.has_begun = true;
            let model = line.model.clone();
            step(Step::Start { id: None, model });
        }
        if let Some(message) = &line.message {
            let prose =
                |text: &Option<Text<'_>>| text.as_ref().is_some_and(|text| !text.is_empty());
            if let Some(text) = message
                .thinking
                .as_ref()
                .filter(|_| prose(&message.thinking))
            {
                step(Step::Thinking(text.borrowed()));
            }
            if let Some(text) = message.content.as_ref().filter(|_| prose(&message.content)) {
                step(Step::Text(text.borrowed()));
            }
            for call in message.tool_calls.iter().flatten() {
                self.call(call, step);
            }
        }
        if line.done {
            step(Step::Finish(line.finish(self.calls > 0)));
            if let Some(usage) = line.usage() {
                step(Step::Usage(usage));
            }
            step(Step::Done);
        }
    }

    fn call(&mut self, call: &Call<'_>, step: &mut dyn FnMut(Step<'_>)) {
        let slot = self.calls;
        let arguments = call.function.object().filter(|_| slot < TOOL_CALLS_MAX);
        let Some(arguments) = arguments else {
            let message = "the provider's answer holds a call that cannot be read";
            return step(Step::Failed(Failure::bad_answer(message)));
        };
        self.calls += 1;
        step(Step::ToolStart {
            slot,
            // An id is made for calls without.
            id: call.id.clone().filter(|id| !id.is_empty()),
            name: call.function.name.borrowed(),
        });
        step(Step::ToolArguments {
            slot,
            piece: Text::new(&arguments),
        });
    }
}
