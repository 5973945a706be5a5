//! The one door for POSLog documents: text in, one draft per transaction out, in one pass and in bounded memory.
//!
//! Elements are known by their local names, so that versions 2.1 to 6.0, vendors' prefixes and missing schemas are all
//! the same; what is not known is passed over. A header may follow the body: a draft is complete when its element ends.
//! After the first fault of the XML nothing more comes; what came before is good.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};
use tillwatch_sdk::parse::Wrong;

use crate::Rules;
use crate::draft::{Attributes, Draft};

/// Deeper elements make a document wrong.
const DEPTH_MAX: usize = 64;
/// Longer texts of the elements that are read make a document wrong.
const TEXT_BYTES_MAX: usize = 256;

/// The elements that mean something to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Transaction,
    RetailTransaction,
    BusinessUnit,
    UnitId,
    RetailStoreId,
    WorkstationId,
    SequenceNumber,
    BusinessDayDate,
    BeginDateTime,
    EndDateTime,
    ReceiptDateTime,
    PosLogDateTime,
    CurrencyCode,
    LineItem,
    Sale,
    Return,
    Quantity,
    Tender,
    TenderChange,
    Cashback,
    Amount,
    Total,
    NegativeTotalFlag,
    TransactionLink,
    ItemLink,
    ForeignCurrency,
    Other,
}

impl Tag {
    fn of(local_name: &str) -> Self {
        match local_name {
            "Transaction" => Self::Transaction,
            "RetailTransaction" => Self::RetailTransaction,
            "BusinessUnit" => Self::BusinessUnit,
            "UnitID" => Self::UnitId,
            "RetailStoreID" => Self::RetailStoreId,
            "WorkstationID" => Self::WorkstationId,
            "SequenceNumber" => Self::SequenceNumber,
            "BusinessDayDate" => Self::BusinessDayDate,
            "BeginDateTime" => Self::BeginDateTime,
            "EndDateTime" => Self::EndDateTime,
            "ReceiptDateTime" => Self::ReceiptDateTime,
            "POSLogDateTime" => Self::PosLogDateTime,
            "CurrencyCode" => Self::CurrencyCode,
            "LineItem" => Self::LineItem,
            "Sale" => Self::Sale,
            "Return" => Self::Return,
            "Quantity" => Self::Quantity,
            "Tender" => Self::Tender,
            "TenderChange" => Self::TenderChange,
            "Cashback" => Self::Cashback,
            "Amount" => Self::Amount,
            "Total" => Self::Total,
            "NegativeTotalFlag" => Self::NegativeTotalFlag,
            "TransactionLink" => Self::TransactionLink,
            "ItemLink" => Self::ItemLink,
            "ForeignCurrency" => Self::ForeignCurrency,
            _ => Self::Other,
        }
    }
}

/// The transactions of a document.
pub(crate) struct Poslog<'a> {
    reader: Reader<&'a [u8]>,
    rules: &'a Rules,
    /// From the root to the open element.
    path: Vec<Tag>,
    /// Of the innermost open element.
    text: String,
    /// The transaction that is being read and its place in the path.
    open: Option<(usize, Draft)>,
    any_element: bool,
    ended: bool,
}

impl<'a> Poslog<'a> {
    pub(crate) fn new(document: &'a str, rules: &'a Rules) -> Self {
        let mut reader = Reader::from_str(document.trim_start_matches('\u{feff}'));
        // Descriptions are put together by hand, and not read anyway.
        reader.config_mut().allow_dangling_amp = true;
        Self {
            reader,
            rules,
            path: Vec::new(),
            text: String::new(),
            open: None,
            any_element: false,
            ended: false,
        }
    }

    /// The next finished transaction; none at the end of a whole document.
    fn read(&mut self) -> Result<Option<Draft>, Wrong> {
        loop {
            match self.reader.read_event().or(Err(Wrong::Syntax))? {
                Event::Start(element) => self.enter(&element)?,
                Event::Empty(element) => {
                    self.enter(&element)?;
                    if let Some(draft) = self.leave() {
                        return Ok(Some(draft));
                    }
                }
                Event::End(_) => {
                    if let Some(draft) = self.leave() {
                        return Ok(Some(draft));
                    }
                }
                Event::Text(text) => self.append(&text.into_inner())?,
                Event::CData(text) => self.append(&text.into_inner())?,
                Event::GeneralRef(entity) => self.append_entity(&entity)?,
                Event::Eof => return self.finish(),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
    }

    fn enter(&mut self, element: &BytesStart<'_>) -> Result<(), Wrong> {
        if self.path.len() >= DEPTH_MAX {
            return Err(Wrong::Limit);
        }
        self.any_element = true;
        self.text.clear();
        let tag = Tag::of(element.local_name().as_ref());
        if tag == Tag::Transaction && self.open.is_none() {
            self.open = Some((self.path.len(), Draft::default()));
        }
        self.path.push(tag);
        if let Some((start, draft)) = &mut self.open {
            let path = self.path.get(*start..).unwrap_or_default();
            draft.enter(path, &Attributes(element), self.rules);
        }
        Ok(())
    }

    /// The draft when its transaction ends here.
    fn leave(&mut self) -> Option<Draft> {
        let (start, mut draft) = match self.open.take() {
            Some(open) => open,
            None => {
                self.path.pop();
                return None;
            }
        };
        draft.leave(
            self.path.get(start..).unwrap_or_default(),
            self.text.trim_ascii(),
            self.rules,
        );
        self.text.clear();
        self.path.pop();
        if self.path.len() == start {
            return Some(draft);
        }
        self.open = Some((start, draft));
        None
    }

    fn append(&mut self, text: &str) -> Result<(), Wrong> {
        if self.open.is_none() || self.path.last().is_none_or(|tag| *tag == Tag::Other) {
            return Ok(());
        }
        if self.text.len().saturating_add(text.len()) > TEXT_BYTES_MAX {
            // White space between elements may be long.
            return if text.trim_ascii().is_empty() {
                Ok(())
            } else {
                Err(Wrong::Limit)
            };
        }
        self.text.push_str(text);
        Ok(())
    }

    /// What is no sign of XML's own cannot be in a number, a date or an identifier.
    fn append_entity(&mut self, entity: &BytesRef<'_>) -> Result<(), Wrong> {
        let mut utf_8 = [0; 4];
        match entity.resolve_char_ref() {
            Ok(Some(char)) => self.append(char.encode_utf8(&mut utf_8)),
            _ => self.append("&"),
        }
    }

    /// A document that ends inside an element was cut off; one without any element is no XML.
    fn finish(&self) -> Result<Option<Draft>, Wrong> {
        if self.path.is_empty() && self.any_element {
            Ok(None)
        } else {
            Err(Wrong::Syntax)
        }
    }
}

impl Iterator for Poslog<'_> {
    type Item = Result<Draft, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let draft = self.read().transpose();
        self.ended = !matches!(draft, Some(Ok(_)));
        draft
    }
}
