"""The native CPU kernel: C++ sources, and the call from Python (`library`)."""
