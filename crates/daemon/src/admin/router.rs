//! Which handler answers which method and path: exact paths first, then the longest prefix.

use std::pin::Pin;

use http::{HeaderValue, Method, StatusCode};

use super::{Request, Response, text};

type Handler = Box<dyn Fn(Request) -> HandlerFuture + Send + Sync>;
type HandlerFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

#[derive(Default)]
pub struct Router {
    routes: Vec<Route>,
}

struct Route {
    method: Method,
    path: String,
    is_prefix: bool,
    handler: Handler,
}

impl Router {
    pub fn new() -> Router {
        Router::default()
    }

    pub fn get<F, R>(self, path: &str, handler: F) -> Router
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.route(Method::GET, path, handler)
    }

    pub fn post<F, R>(self, path: &str, handler: F) -> Router
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.route(Method::POST, path, handler)
    }

    /// A path that ends in `/*` matches everything below it.
    pub fn route<F, R>(mut self, method: Method, path: &str, handler: F) -> Router
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        let (path, is_prefix) = match path.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (path, false),
        };
        let handler: Handler = Box::new(move |request| Box::pin(handler(request)));
        self.routes.push(Route {
            method,
            path: path.to_string(),
            is_prefix,
            handler,
        });
        self
    }

    /// HEAD is answered by GET's handler; hyper leaves the body out.
    #[allow(clippy::result_large_err)] // an error response is a response, not an error path
    pub(super) fn find(&self, method: &Method, path: &str) -> Result<&Handler, Response> {
        let matching = |route: &&Route| {
            route.path == path || (route.is_prefix && path.starts_with(&route.path))
        };
        let wanted = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let best = self
            .routes
            .iter()
            .filter(matching)
            .filter(|route| route.method == *wanted)
            .max_by_key(|route| (!route.is_prefix, route.path.len()));
        if let Some(route) = best {
            return Ok(&route.handler);
        }
        let allowed: Vec<&str> = self
            .routes
            .iter()
            .filter(matching)
            .map(|route| route.method.as_str())
            .collect();
        if allowed.is_empty() {
            return Err(text(StatusCode::NOT_FOUND, "not found\n"));
        }
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        if let Ok(value) = HeaderValue::from_str(&allowed.join(", ")) {
            response.headers_mut().insert(http::header::ALLOW, value);
        }
        Err(response)
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let routes = self.routes.iter().map(|route| (&route.method, &route.path));
        formatter.debug_list().entries(routes).finish()
    }
}
