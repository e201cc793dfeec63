// How a function of C++ that Rust calls ends: exceptions do not cross the border.
#pragma once

#include <c10/util/Exception.h>

#include <cstring>

// Runs `body`. Returns null, or the message of what it threw (malloc'ed, freed by the caller).
template <class F>
char* guarded(F&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}
