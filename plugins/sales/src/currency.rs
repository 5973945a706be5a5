//! The store's currency and how many decimals its minor unit has.

/// An ISO 4217 currency.
pub(crate) struct Currency {
    code: String,
    decimals: u8,
}

impl Currency {
    /// Checks a code; the error says what to change.
    pub(crate) fn new(code: &str) -> Result<Self, String> {
        if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("currency: {code:?} is no ISO 4217 code such as EUR"));
        }
        Ok(Self {
            code: code.to_owned(),
            decimals: decimals(code),
        })
    }

    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// Whether a code means it, in whatever case.
    pub(crate) fn is(&self, code: &str) -> bool {
        self.code.eq_ignore_ascii_case(code)
    }

    /// Whether a unit beside an amount may mean it: its code, its sign, or a word such as `kr`.
    pub(crate) fn has_unit(&self, unit: &str) -> bool {
        match unit {
            "\u{20ac}" => self.is("EUR"),
            "\u{a3}" => self.code.ends_with('P'),
            "\u{a5}" => ["JPY", "CNY"].contains(&self.code.as_str()),
            "$" => self.code.ends_with('D') || ["MXN", "ARS", "CLP", "COP", "UYU", "DOP"].contains(&self.code.as_str()),
            code if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase()) => self.is(code),
            _ => true,
        }
    }

    pub(crate) fn decimals(&self) -> u8 {
        self.decimals
    }
}

/// Source: ISO 4217, list one, column "minor units".
fn decimals(code: &str) -> u8 {
    match code {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND"
        | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_follow_the_currency() {
        for (code, decimals) in [("EUR", 2), ("USD", 2), ("JPY", 0), ("KWD", 3)] {
            assert_eq!(Currency::new(code).unwrap().decimals(), decimals, "{code}");
        }
        assert!(Currency::new("euro").is_err());
    }
}
