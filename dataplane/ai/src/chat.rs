//! A chat that belongs to no provider: what was asked, what was answered, and one step of a stream.
//!
//! The dialects in `provider` read their own JSON into these and write them in their own JSON again.
//! Everything is borrowed from the body it was read from, numbers and schemas as they were spelled.

use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::json::Text;
use crate::token::Usage;

/// What a client asks.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// The conversation, in its order.
    pub turns: Vec<Turn<'a>>,
    /// Limit of the answer's tokens.
    pub max_tokens: Option<&'a RawValue>,
    /// Sampling temperature.
    pub temperature: Option<&'a RawValue>,
    /// Nucleus sampling.
    pub top_p: Option<&'a RawValue>,
    /// Sampling from the best so many.
    pub top_k: Option<&'a RawValue>,
    /// Seed of sampling.
    pub seed: Option<&'a RawValue>,
    /// Penalty on what was said often.
    pub frequency_penalty: Option<&'a RawValue>,
    /// Penalty on what was said.
    pub presence_penalty: Option<&'a RawValue>,
    /// Texts at which the answer ends.
    pub stop: Vec<Text<'a>>,
    /// Tools the model may call.
    pub tools: Vec<Tool<'a>>,
    /// Which of them it must call.
    pub tool_choice: Option<ToolChoice<'a>>,
    /// Whether it may call several at once.
    pub parallel_tool_calls: Option<bool>,
    /// What the answer must look like.
    pub format: AnswerFormat<'a>,
    /// How hard it should think.
    pub reasoning: Option<Reasoning>,
    /// An opaque name of the end user.
    pub user: Option<Text<'a>>,
    /// True for an answer in pieces.
    pub is_stream: bool,
}

/// One turn of a conversation.
#[derive(Debug)]
pub enum Turn<'a> {
    /// Instructions.
    System(Vec<Text<'a>>),
    /// What the user says, results of tools among it.
    User(Vec<Part<'a>>),
    /// What the model said, calls of tools among it.
    Assistant(Vec<Part<'a>>),
}

/// A piece of a turn.
#[derive(Clone, Debug)]
pub enum Part<'a> {
    /// Text.
    Text(Text<'a>),
    /// An image.
    Image(Media<'a>),
    /// A document such as a PDF file.
    Document(Media<'a>),
    /// What the model thought before it answered.
    Thinking(Text<'a>),
    /// A call of a tool.
    ToolCall(ToolCall<'a>),
    /// What a tool gave back.
    ToolResult(ToolResult<'a>),
}

/// Bytes or where they are.
#[derive(Clone, Debug)]
pub enum Media<'a> {
    /// The bytes in base64, as they came.
    Base64 {
        /// Media type.
        media_type: Text<'a>,
        /// The bytes.
        data: Text<'a>,
    },
    /// An address that the provider may fetch; the gateway never does.
    Url(Text<'a>),
}

/// A call of a tool.
#[derive(Clone, Debug)]
pub struct ToolCall<'a> {
    /// Names the call.
    pub id: Text<'a>,
    /// Names the tool.
    pub name: Text<'a>,
    /// A JSON object as it was written.
    pub arguments: String,
}

/// What a tool gave back.
#[derive(Clone, Debug)]
pub struct ToolResult<'a> {
    /// The call it belongs to.
    pub id: Text<'a>,
    /// The tool's name, where the request tells it.
    pub name: Option<Text<'a>>,
    /// Text and images.
    pub content: Vec<Part<'a>>,
    /// True when the tool failed.
    pub is_error: bool,
}

/// A tool that a model may call.
#[derive(Clone, Debug)]
pub struct Tool<'a> {
    /// Its name.
    pub name: Text<'a>,
    /// What it is for.
    pub description: Option<Text<'a>>,
    /// JSON schema of its arguments; absent for none.
    pub schema: Option<&'a RawValue>,
    /// True when arguments must follow the schema.
    pub is_strict: Option<bool>,
}

/// Which tools a model must call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice<'a> {
    /// As it likes.
    Auto,
    /// Some tool.
    Any,
    /// None.
    None,
    /// This one.
    Named(Text<'a>),
}

/// What an answer must look like.
#[derive(Clone, Debug, Default)]
pub enum AnswerFormat<'a> {
    /// Text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// A name for the schema.
        name: Option<Text<'a>>,
        /// The schema.
        schema: &'a RawValue,
        /// True when it must be followed to the letter.
        is_strict: Option<bool>,
    },
}

/// How hard a model should think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasoning {
    /// Not at all.
    None,
    /// As little as can be.
    Minimal,
    /// Little.
    Low,
    /// As usual.
    Medium,
    /// Much.
    High,
    /// More.
    XHigh,
    /// As much as it can.
    Max,
}

/// What a model answers.
#[derive(Debug, Default)]
pub struct Response<'a> {
    /// The provider's name for the answer.
    pub id: Option<Text<'a>>,
    /// The model that answered.
    pub model: Option<Text<'a>>,
    /// Text, thoughts and calls of tools.
    pub parts: Vec<Part<'a>>,
    /// True when the text is a refusal.
    pub is_refusal: bool,
    /// Why it ended.
    pub finish: Finish<'a>,
    /// Tokens used, where the provider tells.
    pub usage: Option<Usage>,
}

/// Why an answer ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Finish<'a> {
    /// It was complete, or something newer that ended well.
    #[default]
    Stop,
    /// It came to a text that stops it.
    StopSequence(Option<Text<'a>>),
    /// It grew too long.
    Length,
    /// Tools are to be called.
    ToolCalls,
    /// The model or a filter refused.
    Refusal,
}

impl Finish<'_> {
    /// A word for logs and metrics, OpenAI's.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stop | Self::StopSequence(_) => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Refusal => "content_filter",
        }
    }

    /// The same without a borrow.
    pub fn into_owned(self) -> Finish<'static> {
        match self {
            Self::Stop => Finish::Stop,
            Self::StopSequence(text) => Finish::StopSequence(text.map(Text::into_owned)),
            Self::Length => Finish::Length,
            Self::ToolCalls => Finish::ToolCalls,
            Self::Refusal => Finish::Refusal,
        }
    }
}

/// One step of an answer in pieces.
#[derive(Debug)]
pub enum Step<'a> {
    /// The answer begins.
    Start {
        /// The provider's name for it.
        id: Option<Text<'a>>,
        /// The model that answers.
        model: Option<Text<'a>>,
    },
    /// More text.
    Text(Text<'a>),
    /// More of a refusal.
    Refusal(Text<'a>),
    /// More of its thoughts.
    Thinking(Text<'a>),
    /// A call of a tool begins; calls are counted from 0.
    ToolStart {
        /// Which call.
        slot: u32,
        /// Its id, where the provider gives one.
        id: Option<Text<'a>>,
        /// The tool.
        name: Text<'a>,
    },
    /// More of a call's arguments, which are text that becomes JSON.
    ToolArguments {
        /// Which call.
        slot: u32,
        /// More of them.
        piece: Text<'a>,
    },
    /// Why it will end.
    Finish(Finish<'a>),
    /// Tokens used so far; each count replaces the one before.
    Usage(Usage),
    /// The provider said that all is said.
    Done,
    /// The provider failed; nothing comes after it.
    Failed(Failure),
}
