//! The attribute behind `#[locara::app]`. Use it through the crate `locara`, which documents it.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Code;
use quote::quote;
use syn::{Error, ItemFn, Result, ReturnType};

/// Makes an async function the app: what `main` is to a program.
///
/// ```
/// use locara::{App, Failure};
///
/// #[locara::app]
/// async fn greet(app: &mut App) -> Result<(), Failure> {
///     let name = app.args.first().map_or("world", String::as_str).to_owned();
///     app.output.write(format_args!("Hello, {name}!\n")).await?;
///     Ok(())
/// }
/// # locara::testing::run(greet, locara::testing::Script::new().args(["Ada"])).expect_output("Hello, Ada!\n");
/// ```
///
/// The function takes `&mut App` and returns a `Result<(), E>` where `E` is `Failure` or turns into
/// one. A component has one app; the crate is a `cdylib`. Natively the function stays what it is, for tests.
#[proc_macro_attribute]
pub fn app(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments.into(), item.into()).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(arguments: Code, item: Code) -> Result<Code> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(
            arguments,
            "#[locara::app] takes no arguments; what an app may do is in locara.json",
        ));
    }
    let function: ItemFn = syn::parse2(item)?;
    check(&function)?;
    let name = &function.sig.ident;
    Ok(quote! {
        #function

        const _: () = {
            struct Entry;

            impl ::locara::__private::Entry for Entry {
                async fn main(app: &mut ::locara::App) -> ::core::result::Result<(), ::locara::Failure> {
                    #name(app).await.map_err(::core::convert::Into::into)
                }
            }

            #[cfg(target_family = "wasm")]
            ::locara::bindings::export!(Entry with_types_in ::locara::bindings);

            // Natively nothing calls an app but its tests. This keeps it from being dead code.
            #[cfg(not(target_family = "wasm"))]
            const _: fn() = ::locara::__private::keep::<Entry>;
        };
    })
}

/// What would otherwise be an error in code that the author never wrote.
fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        return Err(Error::new_spanned(signature.fn_token, "an app waits for the model: write `async fn`"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(&signature.generics, "an app cannot be generic: there is one caller, the host"));
    }
    if signature.inputs.len() != 1 {
        return Err(Error::new_spanned(
            signature,
            "an app takes one parameter: `app: &mut App` has its arguments, input and output",
        ));
    }
    if matches!(signature.output, ReturnType::Default) {
        return Err(Error::new_spanned(signature, "an app says whether it worked: return `Result<(), Failure>`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(item: Code) -> String {
        expand(Code::new(), item).expect_err("must be refused").to_string()
    }

    #[test]
    fn mistakes_are_explained_where_the_author_made_them() {
        assert!(
            refusal(quote!(
                fn a(app: &mut App) -> R {}
            ))
            .contains("write `async fn`")
        );
        assert!(
            refusal(quote!(
                async fn a() -> R {}
            ))
            .contains("one parameter")
        );
        assert!(
            refusal(quote!(
                async fn a(app: &mut App, more: u8) -> R {}
            ))
            .contains("one parameter")
        );
        assert!(
            refusal(quote!(
                async fn a<T>(app: &mut App) -> R {}
            ))
            .contains("generic")
        );
        assert!(
            refusal(quote!(
                async fn a(app: &mut App) {}
            ))
            .contains("return `Result<(), Failure>`")
        );
        let arguments = expand(
            quote!(model = "x"),
            quote!(
                async fn a(app: &mut App) -> R {}
            ),
        )
        .expect_err("refused");
        assert!(arguments.to_string().contains("locara.json"));
    }

    #[test]
    fn the_function_itself_is_left_alone() {
        let function = quote!(
            /** Doc. */
            #[allow(dead_code)]
            pub(crate) async fn a(app: &mut App) -> Result<(), Failure> {
                app.go().await
            }
        );
        let code = expand(Code::new(), function.clone()).expect("a good app").to_string();
        assert!(code.starts_with(&function.to_string()), "{code}");
    }
}
