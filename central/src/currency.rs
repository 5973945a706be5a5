//! How many decimals a currency's minor unit has.
//!
//! In: a currency's code. Out: its number of decimals. It never converts between currencies.
//! The collector `sales` has the same table: a plugin may depend on the SDK only and central on the feed only, and a test
//! that compares the two costs less than a place that both may reach.

/// Decimals of the minor unit; 2 for a code that is not known.
/// Source: ISO 4217, list one, column "minor units".
pub fn decimals(code: &str) -> u8 {
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
    /// From the source of the table to the end of the function.
    fn table(source: &str) -> &str {
        let from = source.find("/// Source: ISO 4217").unwrap();
        let body = source[from..].find("match code").unwrap() + from;
        &source[body..body + source[body..].find("\n}").unwrap()]
    }

    #[test]
    fn the_collector_of_sales_has_the_same_table() {
        let ours = table(include_str!("currency.rs"));
        assert!(ours.contains("\"JPY\"") && ours.contains("\"KWD\""), "{ours}");
        assert_eq!(ours, table(include_str!("../../plugins/sales/src/currency.rs")));
    }
}
