//! What is asked of a request's head alike by whoever wants one explained and whoever wants some
//! traced, on a command line or in a query.

use std::net::IpAddr;

use clap::Args;

use super::query::encode;

/// Parts of a request's head, and who sent it.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The host, as in the Host field.
    #[arg(long)]
    pub host: Option<String>,
    /// A header field, as in `x-team: blue`; a trace takes a bare name for any value; may be given
    /// several times.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// The client's address; 127.0.0.1 is explained when there is none.
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<IpAddr>,
}

impl Head {
    /// Takes a parameter of a query; false when it is none of these.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "host" => self.host = Some(value.to_owned()),
            "header" => self.headers.push(value.to_owned()),
            "client" => {
                let client = value.parse();
                let client =
                    client.map_err(|_| format!("client must be an address, not {value:?}"))?;
                self.client = Some(client);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Adds the same to a query that holds something.
    pub(super) fn add_to(&self, query: &mut String) {
        let host = self.host.iter().map(|host| ("host", encode(host)));
        let headers = self.headers.iter().map(|it| ("header", encode(it)));
        let client = self
            .client
            .map(|client| ("client", encode(&client.to_string())));
        for (name, value) in host.chain(headers).chain(client) {
            query.push_str(&format!("&{name}={value}"));
        }
    }
}
