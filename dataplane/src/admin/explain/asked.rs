//! The request that somebody asks about, as a command line or a query says it.

use std::net::IpAddr;

use clap::Args;
use http::Uri;

use crate::admin::head::Head;
use crate::admin::query::{Query, encode};

/// A request that nobody sent, in the words of a command line.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The request's URL; says host, path, port and whether TLS is spoken, unless options do.
    #[arg(value_name = "URL")]
    pub url: Option<String>,
    /// The method.
    #[arg(long, default_value = "GET")]
    pub method: String,
    /// The path, with the query behind it.
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// The server name of the TLS handshake; the host when TLS is spoken.
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// TLS is spoken, also without a server name.
    #[arg(long)]
    pub tls: bool,
    /// The port it comes to, as the listener names it; any that fits when not given.
    #[arg(long)]
    pub port: Option<u16>,
    /// Host, header fields and client.
    #[command(flatten)]
    pub head: Head,
}

impl Asked {
    /// Reads the query of the admin API; the parameters are named like the options.
    pub(in crate::admin) fn of_query(query: &Query) -> Result<Self, String> {
        let mut asked = Self::default();
        for (name, value) in query.pairs() {
            if asked.head.take(name, value)? {
                continue;
            }
            let value = value.to_owned();
            match name {
                "url" => asked.url = Some(value),
                "method" => asked.method = value,
                "path" => asked.path = Some(value),
                "sni" => asked.sni = Some(value),
                "tls" => asked.tls = matches!(&*value, "" | "true" | "1"),
                "port" => {
                    let port = value.parse();
                    let port = port.map_err(|_| format!("port must be a number, not {value:?}"))?;
                    asked.port = Some(port);
                }
                _ => {
                    return Err(format!(
                        "there is no parameter {name:?}; there are url, method, host, path, header, \
                         sni, tls, port and client"
                    ));
                }
            }
        }
        Ok(asked)
    }

    /// The query that says the same.
    pub(crate) fn to_query(&self) -> String {
        let mut query = format!("method={}", encode(&self.method));
        let texts = [("url", &self.url), ("path", &self.path), ("sni", &self.sni)];
        let texts = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.as_ref()?.clone())));
        let port = self.port.map(|port| ("port", port.to_string()));
        for (name, value) in texts.chain(port) {
            query.push_str(&format!("&{name}={}", encode(&value)));
        }
        self.head.add_to(&mut query);
        if self.tls {
            query.push_str("&tls=true");
        }
        query
    }

    /// The same with what its URL says written out.
    pub(super) fn completed(mut self) -> Result<Self, String> {
        if let Some(url) = self.url.take() {
            let uri: Uri = match url.parse() {
                Ok(uri) => uri,
                Err(error) => return Err(format!("{url:?} is no URL: {error}")),
            };
            let Some(authority) = uri.authority() else {
                return Err(format!(
                    "{url:?} names no host; write it as in http://shop.example.com/cart"
                ));
            };
            self.tls |= matches!(uri.scheme_str(), Some("https" | "wss" | "tls"));
            self.port = self.port.or_else(|| authority.port_u16());
            self.head.host.get_or_insert_with(|| authority.to_string());
            let path = uri.path_and_query().map(ToString::to_string);
            self.path = self.path.or_else(|| path.filter(|path| !path.is_empty()));
        }
        self.tls |= self.sni.is_some();
        if self.tls && self.sni.is_none() {
            let host = self.head.host.as_deref().unwrap_or_default();
            let name = host.split(':').next().unwrap_or_default();
            let is_name = !name.is_empty() && name.parse::<IpAddr>().is_err();
            self.sni = is_name.then(|| name.to_ascii_lowercase());
        }
        if self.head.host.is_none() {
            self.head.host.clone_from(&self.sni);
        }
        Ok(self)
    }

    /// The head of the request in HTTP/1.1.
    pub(super) fn head(&self) -> Result<String, String> {
        let method = &self.method;
        let path = self.path.as_deref().unwrap_or("/");
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        // Without a host it is refused, as it would be.
        if let Some(host) = &self.head.host {
            head.push_str(&format!("host: {host}\r\n"));
        }
        for header in &self.head.headers {
            let Some((name, value)) = header.split_once([':', '=']) else {
                return Err(format!(
                    "{header:?} is no header field, write it as in `x-team: blue`"
                ));
            };
            head.push_str(&format!("{}: {}\r\n", name.trim(), value.trim()));
        }
        head.push_str("\r\n");
        let lines = 3 + self.head.headers.len() - usize::from(self.head.host.is_none());
        if head.matches(['\r', '\n']).count() != 2 * lines {
            return Err("method, path, host and header fields have no line ends".to_owned());
        }
        Ok(head)
    }
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            url: None,
            method: "GET".to_owned(),
            path: None,
            sni: None,
            tls: false,
            port: None,
            head: Head::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_all_that_a_command_line_says() {
        let asked = Asked {
            url: Some("https://shop.example.com:8443/a b?c=d&e".to_owned()),
            method: "POST".to_owned(),
            path: Some("/p?q=%20".to_owned()),
            sni: Some("s".to_owned()),
            tls: true,
            port: Some(1),
            head: Head {
                host: Some("x".to_owned()),
                headers: vec!["x-team: blue+green".to_owned(), "b: \u{e4}".to_owned()],
                client: Some("::1".parse().unwrap()),
            },
        };
        assert_eq!(
            Asked::of_query(&Query::of(Some(&asked.to_query()))),
            Ok(asked)
        );
        assert_eq!(Asked::of_query(&Query::default()), Ok(Asked::default()));
        for query in ["port=x", "client=x", "hots=x"] {
            assert!(Asked::of_query(&Query::of(Some(query))).is_err(), "{query}");
        }
    }

    #[test]
    fn a_url_says_what_options_leave_open() {
        let of = |url: &str, host: Option<&str>| {
            let asked = Asked {
                url: Some(url.to_owned()),
                head: Head {
                    host: host.map(str::to_owned),
                    ..Head::default()
                },
                ..Asked::default()
            };
            let asked = asked.completed()?;
            Ok::<_, String>((asked.head.host, asked.sni, asked.port, asked.path))
        };
        let text = |text: &str| Some(text.to_owned());
        for (url, host, expected) in [
            (
                "http://a.test/x?y",
                None,
                (text("a.test"), None, None, text("/x?y")),
            ),
            (
                "https://A.test:8443",
                None,
                (text("A.test:8443"), text("a.test"), Some(8443), text("/")),
            ),
            (
                "https://127.0.0.1/",
                Some("b.test"),
                (text("b.test"), text("b.test"), None, text("/")),
            ),
        ] {
            assert_eq!(of(url, host), Ok(expected), "{url}");
        }
        assert!(of("/only/a/path", None).is_err());
    }

    #[test]
    fn a_head_is_one_head() {
        let asked = |header: &str| Asked {
            head: Head {
                host: Some("a.test".to_owned()),
                headers: vec![header.to_owned()],
                client: None,
            },
            ..Asked::default()
        };
        let head = asked("X-Team:blue").head();
        let expected = "GET / HTTP/1.1\r\nhost: a.test\r\nX-Team: blue\r\n\r\n";
        assert_eq!(head.as_deref(), Ok(expected));
        for header in ["nonsense", "a: b\r\nc: d", "a: b\nc"] {
            assert!(asked(header).head().is_err(), "{header:?}");
        }
    }
}
