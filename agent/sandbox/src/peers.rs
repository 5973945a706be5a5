//! The functions of the world `prober`: questions over the network, which the agent asks.

use tillwatch_border::{
    Column, ColumnValues, Cursor, HttpRequest, HttpResponse, Method, PeerFailure, PeerFault, Question, Reply, Table,
    TcpRequest, TcpResponse,
};

use crate::contract::tillwatch::collector::{http, peer, sql, tcp};
use crate::imports::Guest;

impl peer::Host for Guest {}

impl http::Host for Guest {
    fn send(&mut self, endpoint: String, request: http::Request) -> Result<http::Response, peer::Failure> {
        let question = Question::Http(HttpRequest {
            method: match request.method {
                http::Method::Get => Method::Get,
                http::Method::Post => Method::Post,
            },
            path: request.path,
            headers: request.headers,
            body: request.body,
        });
        match self.ask_peer(&endpoint, question)? {
            Reply::Http(response) => Ok(http_response(response)),
            Reply::Tcp(_) | Reply::Sql(_) => Err(OF_ANOTHER_KIND),
        }
    }
}

impl tcp::Host for Guest {
    fn exchange(&mut self, name: String, request: tcp::Request) -> Result<tcp::Response, peer::Failure> {
        let question = Question::Tcp(TcpRequest {
            bytes: request.bytes,
            until: request.until.unwrap_or_default(),
            bytes_max: request.max_bytes,
        });
        match self.ask_peer(&name, question)? {
            Reply::Tcp(response) => Ok(tcp_response(response)),
            Reply::Http(_) | Reply::Sql(_) => Err(OF_ANOTHER_KIND),
        }
    }
}

impl sql::Host for Guest {
    fn run(&mut self, query: String, after: Option<sql::Cursor>) -> Result<sql::Table, peer::Failure> {
        let after = after.map(|cursor| match cursor {
            sql::Cursor::Integer(integer) => Cursor::Integer(integer),
            sql::Cursor::Text(text) => Cursor::Text(text),
        });
        match self.ask_peer(&query, Question::Sql { after })? {
            Reply::Sql(answer) => Ok(table(answer)),
            Reply::Http(_) | Reply::Tcp(_) => Err(OF_ANOTHER_KIND),
        }
    }
}

impl Guest {
    fn ask_peer(&mut self, name: &str, question: Question) -> Result<Reply, peer::Failure> {
        if !question.is_bounded() {
            self.counters.peers_refused += 1;
            return Err(failure(PeerFault::Denied.at_once()));
        }
        let within = self.budget.peer(&mut self.counters);
        let within = within.map_err(|fault| failure(fault.at_once()))?;
        if self.check_name(name).is_err() {
            return Err(failure(PeerFault::Unknown.at_once()));
        }
        let reply = self.host.ask_peer(name, question, within);
        // How long it took is the agent's to measure and to bound.
        if let Ok(reply) = &reply {
            self.budget.on_read(reply.bytes());
        }
        reply.map_err(failure)
    }
}

const OF_ANOTHER_KIND: peer::Failure = peer::Failure {
    fault: peer::Fault::Unknown,
    elapsed_us: 0,
};

fn failure(failure: PeerFailure) -> peer::Failure {
    peer::Failure {
        fault: match failure.fault {
            PeerFault::Unknown => peer::Fault::Unknown,
            PeerFault::Denied => peer::Fault::Denied,
            PeerFault::Unreachable => peer::Fault::Unreachable,
            PeerFault::Untrusted => peer::Fault::Untrusted,
            PeerFault::Timeout => peer::Fault::Timeout,
            PeerFault::TooLarge => peer::Fault::TooLarge,
            PeerFault::Malformed => peer::Fault::Malformed,
            PeerFault::Exhausted => peer::Fault::Exhausted,
            PeerFault::TooSoon => peer::Fault::TooSoon,
        },
        elapsed_us: failure.elapsed_us,
    }
}

fn http_response(response: HttpResponse) -> http::Response {
    http::Response {
        status: response.status,
        headers: response.headers,
        body: response.body,
        elapsed_us: response.elapsed_us,
    }
}

fn tcp_response(response: TcpResponse) -> tcp::Response {
    tcp::Response {
        bytes: response.bytes,
        connect_us: response.connect_us,
        elapsed_us: response.elapsed_us,
    }
}

fn table(answer: Table) -> sql::Table {
    let column = |column: Column| sql::Column {
        name: column.name,
        values: match column.values {
            ColumnValues::Integers(values) => sql::Values::Integers(values),
            ColumnValues::Reals(values) => sql::Values::Reals(values),
            ColumnValues::Texts(values) => sql::Values::Texts(values),
        },
    };
    sql::Table {
        columns: answer.columns.into_iter().map(column).collect(),
        more: answer.more,
        elapsed_us: answer.elapsed_us,
    }
}
