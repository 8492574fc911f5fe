//! `#[test]` for a browser. A crate that takes its macros with `#[macro_use]` has it instead of the
//! standard one, so the files of native tests need not change.

use std::path::Path;

use proc_macro::{Span, TokenStream, TokenTree};

/// Exports the test as `file__function`, which returns a promise; it may wait inside.
#[proc_macro_attribute]
pub fn test(_: TokenStream, item: TokenStream) -> TokenStream {
    let is_fn = |token: &TokenTree| token.to_string() == "fn";
    let Some(name) = item.clone().into_iter().skip_while(|token| !is_fn(token)).nth(1) else {
        return r#"compile_error!("`#[test]` stands before a function");"#.parse().unwrap_or(item);
    };
    let path = Span::call_site().file();
    let file = Path::new(&path).file_stem().unwrap_or_default().to_string_lossy();
    let export = format!(
        r#"const _: () = {{
            #[::wasm_bindgen::prelude::wasm_bindgen(jspi, js_name = "{file}__{name}")]
            pub fn run() {{ {name}() }}
        }};"#
    );
    let export: TokenStream = export.parse().unwrap_or_default();
    item.into_iter().chain(export).collect()
}
