//! Black-box tests of the component.
