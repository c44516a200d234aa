// Stand-ins for the names of CUDA that the kernels use, so that a C++ compiler can compile them for the CPU.

#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

using std::fabs;

#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)

struct Index { unsigned x; };
static thread_local Index threadIdx, blockIdx;

template <class To, class From> static inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
static inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
static inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
static inline double __longlong_as_double(long long x) { return bits_as<double>(x); }
static inline long long __double_as_longlong(double x) { return bits_as<long long>(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }

static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return ((unsigned long long)high << 32 | low) >> (shift & 31);
}
static inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
static inline float reciprocal_root_estimate(float x) { return 1 / std::sqrt(x); }
static inline float if_greater(float x, float limit, float a, float b) { return x > limit ? a : b; }

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned __int128)a * b >> 64;
}

struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
template <class T> static inline void __stwb(T* to, T value) { *to = value; }

// Runs the threads of a kernel one after the other; the arguments are addresses of values, as for cuLaunchKernel.
template <class... A, std::size_t... I>
static void run(void (*kernel)(A...), unsigned blocks, unsigned threads, void** arguments, std::index_sequence<I...>) {
  for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
    for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
      kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}

#define LAUNCHER(name)                                                                              \
  extern "C" void launch_##name(unsigned blocks, unsigned threads, void** arguments) {             \
    [&]<class... A>(void (*kernel)(A...)) {                                                         \
      run(kernel, blocks, threads, arguments, std::index_sequence_for<A...>());                     \
    }(name);                                                                                        \
  }
