/// Runs requests in the process that accepted them: the default of
/// [`AsyncAcceptLayer`](crate::AsyncAcceptLayer).
#[derive(Debug, Clone, Copy)]
pub struct InProcess {
    _none: (),
}
