// Random bits that are a function of a seed and of a number's place alone: nothing is stored or drawn in order.
#pragma once
#include "cpu.h"

// 32 random bits for a place: a keyed bijection of 32-bit words, multiplications and shifts by the constants of triple32
// (C. Wellons, hash-prospector), with a key before each. Of two keys the bits share no pattern that the tests can find.
template <class I>
FN I random_bits(I place, uint32_t first, uint32_t second) {
  I x = place ^ first;
  x = (x ^ (x >> 17)) * 0xed5ad4bbu;
  x = (x ^ second ^ (x >> 11)) * 0xac4c1b51u;
  x = (x ^ first ^ (x >> 15)) * 0x31848babu;
  return x ^ (x >> 14);
}

// The places of a lane's numbers, from `first` on: a vector, or one number where a lane holds one.
template <class T>
FN auto places_from(uint32_t first) {
  if constexpr (Access<T>::SIZE == 1) {
    return first;
  } else {
    Words steps;
    for (int i = 0; i < LANES; i++) steps[i] = i;  // a constant; lanes that are not would be set one by one
    return steps + first;
  }
}
