// The laws of stream v1 for CUDA (docs/stream-v1.md), with the bits and the names of the numpy reference.
//
// cuda_kernels.py prepends the laws' constants and the sizes as macros (LOG32, THREADS, ...) and compiles the text with
// NVRTC, such that only explicit calls are fused, subnormals are kept, and divisions and roots are correctly rounded.
// tests/engine/test_cuda.py runs these kernels on a CPU, with a header that replaces the few names of CUDA, and
// tests/engine/test_cuda_machine_code.py inspects the machine code.

typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

#define INLINE __device__ __forceinline__

#ifdef __CUDACC__
INLINE float reciprocal_root_estimate(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// x > limit ? a : b, without a branch: most warps would take both sides of it.
INLINE float if_greater(float x, float limit, float a, float b) {
  float chosen;
  asm("{.reg .pred p; setp.gt.f32 p, %1, %2; selp.f32 %0, %3, %4, p;}" : "=f"(chosen) : "f"(x), "f"(limit), "f"(a), "f"(b));
  return chosen;
}
#endif

// Each thread computes ITEMS Philox blocks, THREADS apart, so that the stores of a warp are adjacent.
constexpr u32 TILE = THREADS * ITEMS;


// Words: Philox4x32-10.

struct Words { u32 w0, w1, w2, w3; };

// For u64(a) * b the compiler would add a 0 to the upper half.
INLINE u64 product(u32 a, u32 b) { return u64(__umulhi(a, b)) << 32 | a * b; }

// The words of N blocks at a distance; they share the keys of the rounds.
template <int N> INLINE void philox(u64 block, u64 apart, u64 stream, u64 seed, Words* w) {
  u32 k0 = u32(seed), k1 = u32(seed >> 32);
#pragma unroll
  for (int i = 0; i < N; i++) {
    const u64 number = block + i * apart;
    w[i] = {u32(number), u32(number >> 32), u32(stream), u32(stream >> 32)};
  }
#pragma unroll
  for (int round = 0; round < PHILOX_ROUNDS; round++) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      const u64 product0 = product(w[i].w0, PHILOX_M0), product1 = product(w[i].w2, PHILOX_M1);
      w[i] = {u32(product1 >> 32) ^ w[i].w1 ^ k0, u32(product1), u32(product0 >> 32) ^ w[i].w3 ^ k1, u32(product0)};
    }
    k0 += PHILOX_W0;
    k1 += PHILOX_W1;
  }
}

INLINE Words philox(u64 block, u64 stream, u64 seed) {
  Words w;
  philox<1>(block, 0, stream, seed, &w);
  return w;
}

INLINE u64 draw64(u32 low, u32 high) { return (low | u64(high) << 32) >> 11; }


// Functions.

// a b + c, rounded once. UNFUSED is defined by the test that nothing else is fused.
#ifndef UNFUSED
INLINE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
INLINE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
#else
template <class T> INLINE T fused(T a, T b, T c) { return a * b + c; }
#endif

template <class T> INLINE T horner(T, T y) { return y; }

// Horner's rule, highest power first: y x + next, and so on.
template <class T, class... Rest> INLINE T horner(T x, T y, T next, Rest... rest) {
  return horner(x, fused(y, x, next), rest...);
}

// Division and roots have named functions, because their machine code refines an estimate by fused multiply-adds, to
// round correctly. The test that nothing else is fused replaces them.
#ifndef WITHOUT_ROOTS
// For numbers between 2^-100 and 2^100: CUDA's own algorithm (Markstein 2000), without its special cases.
INLINE float root(float x) {
  const float estimate = reciprocal_root_estimate(x), y = x * estimate;
  return fused(fused(-y, y, x), 0.5f * estimate, y);
}
INLINE double root(double x) { return sqrt(x); }
INLINE double quotient(double x, double y) { return x / y; }
#endif

template <class T> INLINE T clamped(T x, T lowest, T highest) {
  x = x < lowest ? lowest : x;
  return x > highest ? highest : x;
}

// -2 ln(2^-octaves (1 - h / 2)).
INLINE float minus_two_log(float octaves, float h) {
  return fused(octaves, TWO_LN2_32, fused(h, horner(h, LOG32) * h, h));
}
INLINE double minus_two_log(double octaves, double h) {
  return fused(octaves, TWO_LN2_64, fused(h, horner(h, LOG64) * h, h));
}

// The octaves and h of the number with these bits, divided by 2^power.
INLINE float octaves_of(u32 bits, int power) {
  const float exponent = __uint_as_float(__funnelshift_r(bits, 0x4B000000u >> 9, 23));  // 2^23 more
  return (8388608.0f + 126.0f + power) - exponent;
}
INLINE float h_of(u32 bits) { return 2.0f - __uint_as_float((bits & 0x7FFFFFu) | 0x3F800000u); }
INLINE double octaves_of(u64 bits, int power) { return double(1022 + power - i32(bits >> 52)); }
INLINE double h_of(u64 bits) { return 2.0 - __longlong_as_double((bits & 0xFFFFFFFFFFFFFull) | 0x3FF0000000000000ull); }

// sqrt(-2 ln u) with u = (w | 1) / 2^32. Near 1, the distance to 1 must be precise.
INLINE float radius(u32 w) {
  const float x = float(i32(w | 1u));
  const u32 bits = __float_as_uint(x);
  const bool near_one = x < 0.0f;
  return root(minus_two_log(near_one ? 0.0f : octaves_of(bits, 32), near_one ? x * -0x1p-31f : h_of(bits)));
}

// Cosine and sine of an angle: an eighth of a turn times x in (-1, 1), reflected by the two lowest bits.
INLINE void cos_sin(u32 w, float& cosine, float& sine) {
  const float x = float(i32((w & 0xFFFFFF00u) | 0x80u)) * 0x1p-31f;
  const float z = x * x;
  const float s = fused(x, EIGHTH_TURN_32, horner(z, SIN32) * x);
  const float c = __uint_as_float(__float_as_uint(fused(horner(z, COS32), z, 1.0f)) ^ w << 31);
  cosine = w & 2u ? s : c;
  sine = w & 2u ? c : s;
}

// The same for words of 64 bits.
INLINE double signed64(u32 low, u32 high) { return fused(double(i32(high)), 0x1p32, double(low)); }

INLINE double radius(u32 low, u32 high) {
  const double x = signed64(low | 1u, high);
  const u64 bits = __double_as_longlong(x);
  const bool near_one = x < 0.0;
  return root(minus_two_log(near_one ? 0.0 : octaves_of(bits, 64), near_one ? x * -0x1p-63 : h_of(bits)));
}

INLINE void cos_sin(u32 low, u32 high, double& cosine, double& sine) {
  const double x = signed64((low & 0xFFFFF800u) | 0x400u, high) * 0x1p-63;
  const double z = x * x;
  const double s = fused(x, EIGHTH_TURN_64, horner(z, SIN64) * x);
  const double c = __longlong_as_double(__double_as_longlong(fused(horner(z, COS64), z, 1.0)) ^ u64(low) << 63);
  cosine = low & 2u ? s : c;
  sine = low & 2u ? c : s;
}

// The quantile of the standard normal in float32: of (1 + x) / 2 for x up to one half,
INLINE float middle(float x) {
  const float z = fused(x, MIDDLE_SLOPE32, horner(x * x, MIDDLE32) * x);
  return z > MIDDLE_LARGEST32 ? MIDDLE_LARGEST32 : z;
}

// and of 1 - tail, for tails of at least NEAR_TAIL (is_near) or any tails.
template <bool is_near> INLINE float quantile_of_tail(float tail) {
  if constexpr (is_near) return horner(root(tail) - NEAR_CENTRE32, NEAR32);
  const u32 bits = __float_as_uint(tail);
  return horner(root(minus_two_log(octaves_of(bits, 0), h_of(bits))) - FAR_CENTRE32, FAR32);
}

// The quantile of the standard normal, from the probabilities below and above it. (Not inlined: its code is long.)
__device__ __noinline__ double quantile(double below, double above) {
  const double q = 0.5 * (below - above);
  if (fabs(q) <= QUANTILE_HALF_WIDTH) {
    const double r = QUANTILE_HALF_WIDTH_SQUARED - q * q;
    return quotient(q * horner(r, QUANTILE_CENTRAL0), horner(r, QUANTILE_CENTRAL1));
  }
  const u64 bits = __double_as_longlong(below < above ? below : above);
  const double t = root(0.5 * minus_two_log(octaves_of(bits, 0), h_of(bits)));
  const double near = t - QUANTILE_TAIL_SHIFT, far = t - QUANTILE_FAR_SHIFT;
  const double tail = t <= QUANTILE_FAR_SHIFT ? quotient(horner(near, QUANTILE_TAIL0), horner(near, QUANTILE_TAIL1))
                               : quotient(horner(far, QUANTILE_FAR0), horner(far, QUANTILE_FAR1));
  return q < 0 ? -tail : tail;
}


// Laws. Each maps the words of a block to its four float32 or two float64 values.

// The values to compute: Philox's key and stream, and the parameters of engine/parameters.py, in their order. For
// sparse, the mask's rows, columns, zeros, bits and stream, as integers, follow the two parameters of the normal law.
struct Draw { u64 seed, stream; double p[7]; };

struct Uniform32 {
  typedef float T;
  static constexpr int N = 4;
  float a, width, lowest, highest;
  INLINE Uniform32(const Draw& d) : a(d.p[0]), width(d.p[1]), lowest(d.p[2]), highest(d.p[3]) {}
  INLINE float value(u32 w) const { return clamped(a + width * (float(w >> 8) * 0x1p-24f), lowest, highest); }
  INLINE void operator()(Words w, u64, float* x) const {
    x[0] = value(w.w0), x[1] = value(w.w1), x[2] = value(w.w2), x[3] = value(w.w3);
  }
};

struct Normal32 {
  typedef float T;
  static constexpr int N = 4;
  float mean, std;
  INLINE Normal32(const Draw& d) : mean(d.p[0]), std(d.p[1]) {}
  INLINE void pair(u32 w0, u32 w1, float* x) const {
    const float scaled = std * radius(w0);
    float cosine, sine;
    cos_sin(w1, cosine, sine);
    x[0] = fused(scaled, cosine, mean);
    x[1] = fused(scaled, sine, mean);
  }
  INLINE void operator()(Words w, u64, float* x) const { pair(w.w0, w.w1, x), pair(w.w2, w.w3, x + 2); }
};

// The real and imaginary parts of two complex numbers in a disk.
struct Disk32 {
  typedef float T;
  static constexpr int N = 4;
  float radius;
  INLINE Disk32(const Draw& d) : radius(d.p[0]) {}
  INLINE void pair(u32 w0, u32 w1, float* x) const {
    const float modulus = radius * root(float(w0 | 1u) * 0x1p-32f);
    float cosine, sine;
    cos_sin(w1, cosine, sine);
    x[0] = modulus * cosine;
    x[1] = modulus * sine;
  }
  INLINE void operator()(Words w, u64, float* x) const { pair(w.w0, w.w1, x), pair(w.w2, w.w3, x + 2); }
};

struct DiskNormal32 : Normal32 {
  u64 lowest;
  INLINE DiskNormal32(const Draw& d) : Normal32(d), lowest(d.p[2]) {}
  INLINE u32 from_lowest(u32 w) const { return u32(lowest + (((1ull << 32) - lowest) * w >> 32)); }
  INLINE void operator()(Words w, u64 block, float* x) const {
    Normal32::operator()({from_lowest(w.w0), w.w1, from_lowest(w.w2), w.w3}, block, x);
  }
};

// a if all bits of the mask are set, b if none is.
INLINE float either(u32 mask, float a, float b) {
  return __uint_as_float((__float_as_uint(a) & mask) | (__float_as_uint(b) & ~mask));
}

// Bounds on both sides of the mean, computed in float32. The fields are those of TruncNormal32Parameters.
template <bool is_near> struct TruncNormalFloat32 {
  typedef float T;
  static constexpr int N = 4;
  float mean, std, std_rest, step, step_rest, p_first, q_first, below, above, lowest, highest;
  u32 median;
  INLINE TruncNormalFloat32(const Draw& d) { *this = reinterpret_cast<const TruncNormalFloat32&>(d.p); }
  INLINE float value(u32 w) const {
    const u32 is_below = w < median ? ~0u : 0u;  // in all bits
    const float outer = float(w ^ ~is_below), inner = float((w - median) ^ is_below);
    const float tail = fused(outer, step, either(is_below, p_first, q_first));
    const float x = fused(inner, 2.0f * step, fused(inner, 2.0f * step_rest, either(is_below, below, above)));
    const float quantile = if_greater(tail, MIDDLE_FROM32, middle(x), quantile_of_tail<is_near>(tail));
    const float z = __uint_as_float(__float_as_uint(quantile) ^ (is_below & 1u << 31));
    // Equal to `clamped`: the sign of a zero cannot matter here (engine/parameters.py, _suits_float32).
    return fminf(fmaxf(fused(std, z, fused(std_rest, z, mean)), lowest), highest);
  }
  INLINE void operator()(Words w, u64, float* x) const {
    x[0] = value(w.w0), x[1] = value(w.w1), x[2] = value(w.w2), x[3] = value(w.w3);
  }
};

// Other bounds, computed in float64.
struct TruncNormal32 {
  typedef float T;
  static constexpr int N = 4;
  double mean, std, p_below, inside, p_above;
  float lowest, highest;
  INLINE TruncNormal32(const Draw& d)
      : mean(d.p[0]), std(d.p[1]), p_below(d.p[2]), inside(d.p[3]), p_above(d.p[4]), lowest(d.p[5]), highest(d.p[6]) {}
  INLINE float value(u32 w) const {
    const double below = p_below + (double(w) + 0.5) * 0x1p-32 * inside;
    const double above = p_above + (double(~w) + 0.5) * 0x1p-32 * inside;
    return clamped(float(mean + std * quantile(below, above)), lowest, highest);
  }
  INLINE void operator()(Words w, u64, float* x) const {
    x[0] = value(w.w0), x[1] = value(w.w1), x[2] = value(w.w2), x[3] = value(w.w3);
  }
};

template <class Value> struct Constant {
  typedef Value T;
  static constexpr int N = 16 / sizeof(T);
  T value;
  INLINE Constant(const Draw& d) : value(d.p[0]) {}
  INLINE void operator()(Words, u64, T* x) const {
#pragma unroll
    for (int lane = 0; lane < N; lane++) x[lane] = value;
  }
};

struct Uniform64 {
  typedef double T;
  static constexpr int N = 2;
  double a, width, lowest, highest;
  INLINE Uniform64(const Draw& d) : a(d.p[0]), width(d.p[1]), lowest(d.p[2]), highest(d.p[3]) {}
  INLINE double value(u64 draw) const { return clamped(a + width * (double(draw) * 0x1p-53), lowest, highest); }
  INLINE void operator()(Words w, u64, double* x) const {
    x[0] = value(draw64(w.w0, w.w1)), x[1] = value(draw64(w.w2, w.w3));
  }
};

struct Normal64 {
  typedef double T;
  static constexpr int N = 2;
  double mean, std;
  INLINE Normal64(const Draw& d) : mean(d.p[0]), std(d.p[1]) {}
  INLINE void operator()(Words w, u64, double* x) const {
    const double scaled = std * radius(w.w0, w.w1);
    double cosine, sine;
    cos_sin(w.w2, w.w3, cosine, sine);
    x[0] = fused(scaled, cosine, mean);
    x[1] = fused(scaled, sine, mean);
  }
};

struct TruncNormal64 {
  typedef double T;
  static constexpr int N = 2;
  double mean, std, p_below, inside, p_above, lowest, highest;
  INLINE TruncNormal64(const Draw& d)
      : mean(d.p[0]), std(d.p[1]), p_below(d.p[2]), inside(d.p[3]), p_above(d.p[4]), lowest(d.p[5]), highest(d.p[6]) {}
  INLINE double value(u64 draw) const {
    const u64 mirrored = ((1ull << 53) - 1) - draw;
    const double below = p_below + double(2 * draw + 1) * 0x1p-54 * inside;
    const double above = p_above + double(2 * mirrored + 1) * 0x1p-54 * inside;
    return clamped(mean + std * quantile(below, above), lowest, highest);
  }
  INLINE void operator()(Words w, u64, double* x) const {
    x[0] = value(draw64(w.w0, w.w1)), x[1] = value(draw64(w.w2, w.w3));
  }
};


// Sparse: a normal law, and a keyed permutation of each column's rows, by a Feistel network with cycle walking.

INLINE u32 mixed(u32 half, u32 key) {  // MurmurHash3's finaliser
  u32 h = half ^ key;
  h = (h ^ h >> 16) * MURMUR_M0;
  h = (h ^ h >> 13) * MURMUR_M1;
  return h ^ h >> 16;
}

INLINE u64 feistel(u64 position, const u32* keys, u32 bits) {
  const u32 low_bits = (bits + 1) / 2;
  const u32 low_mask = u32((1ull << low_bits) - 1), high_mask = u32((1ull << (bits - low_bits)) - 1);
  u32 low = u32(position) & low_mask, high = u32(position >> low_bits);
#pragma unroll
  for (int step = 0; step < FEISTEL_ROUNDS; step += 2) {
    low ^= mixed(high, keys[step]) & low_mask;
    high ^= mixed(low, keys[step + 1]) & high_mask;
  }
  return u64(high) << low_bits | low;
}

INLINE u64 quotient_and_rest(u64 x, u64 divisor, u64& rest) {
  if ((x | divisor) >> 32) {
    rest = x % divisor;
    return x / divisor;
  }
  rest = u32(x) % u32(divisor);  // far fewer instructions
  return u32(x) / u32(divisor);
}

template <class Normal> struct Sparse {
  typedef typename Normal::T T;
  static constexpr int N = Normal::N;
  Normal normal;
  u64 seed, rows, columns, zeros, stream;
  u32 bits;
  INLINE Sparse(const Draw& d)
      : normal(d), seed(d.seed), rows(number(d.p[2])), columns(number(d.p[3])), zeros(number(d.p[4])),
        stream(number(d.p[6])), bits(u32(number(d.p[5]))) {}
  static INLINE u64 number(double bits) { return __double_as_longlong(bits); }
  INLINE bool is_zero(u64 row, u64 column) const {
    u32 keys[FEISTEL_ROUNDS];
#pragma unroll
    for (int i = 0; i < FEISTEL_ROUNDS / 4; i++) {
      const Words w = philox(column * (FEISTEL_ROUNDS / 4) + i, stream, seed);
      keys[4 * i] = w.w0, keys[4 * i + 1] = w.w1, keys[4 * i + 2] = w.w2, keys[4 * i + 3] = w.w3;
    }
    u64 position = feistel(row, keys, bits);
    while (position >= rows) position = feistel(position, keys, bits);
    return position < zeros;
  }
  INLINE void operator()(Words w, u64 block, T* x) const {
    normal(w, block, x);
    u64 column, row = quotient_and_rest(block * N, columns, column);
    u32 covered = 0;
#pragma unroll 1
    for (int lane = 0; lane < N; lane++) {
      if (row < rows && is_zero(row, column)) covered |= 1u << lane;  // a block may extend beyond the last row
      if (++column == columns) row++, column = 0;
    }
#pragma unroll
    for (int lane = 0; lane < N; lane++) x[lane] = covered & 1u << lane ? 0 : x[lane];
  }
};


// Types: how a law's values are stored.

struct Float32 { typedef float T; static INLINE T rounded(float x) { return x; } };
struct Float64 { typedef double T; static INLINE T rounded(double x) { return x; } };

// From compute capability 8.0 on, one instruction rounds two values, also to nearest even.
#if __CUDA_ARCH__ >= 800
#define ROUNDS_PAIRS
#define PAIR(instruction)                                                  \
  static INLINE u32 pair(float x, float y) {                               \
    u32 bits;                                                              \
    asm(instruction " %0, %1, %2;" : "=r"(bits) : "f"(y), "f"(x));         \
    return bits;                                                           \
  }
#else
#define PAIR(instruction)
#endif

struct Bfloat16 {
  typedef u16 T;
  PAIR("cvt.rn.bf16x2.f32")
  static INLINE T rounded(float x) {
    const u32 b = __float_as_uint(x);
    return u16((b + (0x7FFFu + (b >> 16 & 1u))) >> 16);
  }
};

struct Float16 {
  typedef u16 T;
  PAIR("cvt.rn.f16x2.f32")
  static INLINE T rounded(float x) {
    const u32 b = __float_as_uint(x), magnitude = b & 0x7FFFFFFFu, sign = b >> 16 & 0x8000u;
    const u32 normal = (magnitude - 0x38000000u + (0xFFFu + (magnitude >> 13 & 1u))) >> 13;
    // Half precision's subnormals are multiples of 2^-24, the spacing of float32 from 1/2 to 1.
    const u32 subnormal = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3F000000u;
    return u16(sign | (magnitude >= 0x38800000u ? normal : subnormal));
  }
};


// Tables. A launch does a table of tasks, each of a number of CUDA blocks. The table is the kernel's argument, at most
// the 4 KiB that every driver accepts: no copy precedes the launch, and reads come from constant memory.

template <class Task, int N> struct Table {
  u32 begins[N];  // the first CUDA block of each task; after the last task, a number beyond all blocks
  Task tasks[N - 1];
};

// The task of this CUDA block. N is a power of two.
template <int N> INLINE u32 task_number(const u32 (&begins)[N]) {
  u32 found = 0;
  if (blockIdx.x < begins[1]) return 0;
#pragma unroll
  for (u32 half = N / 2; half; half /= 2)
    if (begins[found + half] <= blockIdx.x) found += half;
  return found;
}


// Regions, as runs of consecutive flat indices. The number of a thread determines the run and the block that it
// computes: the blocks of the first run come first, then for each run as many as any run can have, so that some threads
// may be idle.

struct Axis { u64 extent, stride, out_stride; };

// Packed by cuda_tables.py: the elements of a tensor to compute, and where they go.
struct Target {
  u64 out;                       // the address of the elements
  u64 count;                     // the number of elements there
  u64 run_length, first_run;
  i64 first_run_begin;           // the position of the first run, possibly before ``out``
  u64 first_block;               // the block of the first thread,
  i64 first_position;            // and the position of its first element
  u64 blocks, reciprocal, lead;  // of each run; 2^64 / blocks; how many fewer the first run has
  u64 threads;
  i64 out_offset;                // the position of run 0,
  u64 offset;                    // and its flat index
  u32 inner_begin, inner_tiles;  // CUDA blocks within the first run that store all elements, aligned
  u16 is_whole;                  // whether there are several runs along one axis, all of whole aligned blocks
  u16 step_runs, step_blocks;    // the runs and the blocks that THREADS threads span
  u16 dimensions;                // outside the runs
};

struct DrawTask { Target target; Draw draw; };

struct Draws : Table<DrawTask, DRAW_TASKS> {
  u32 first_axes[DRAW_TASKS];    // of each task
  Axis axes[MAX_OUTER_DIMENSIONS];
};

// Where a block's elements go: the position of the first in ``out``, and the range of those to store, if any.
struct Place { u64 block; i64 position; int low, high; };

// The first flat index of a run, and its position.
INLINE u64 flat_of_run(const Target& target, const Axis* axes, u64 run, i64& begin) {
  u64 flat = target.offset;
  begin = target.out_offset;
#pragma unroll 1
  for (int axis = target.dimensions - 1; axis > 0; axis--) {
    u64 coordinate;
    run = quotient_and_rest(run, axes[axis].extent, coordinate);
    flat += coordinate * axes[axis].stride;
    begin += i64(coordinate * axes[axis].out_stride);
  }
  begin += i64(run * axes[0].out_stride);
  return flat + run * axes[0].stride;
}

// The run of a thread, relative to the first run, and the block in it. The first run counts as a whole run.
INLINE u64 run_of(const Target& target, u64 thread, u64& block) {
  block = thread + target.lead;
  u64 run = __umul64hi(block, target.reciprocal);  // possibly one too small
  block -= run * target.blocks;
  if (block >= target.blocks) block -= target.blocks, run++;
  return run;
}

template <int N> INLINE Place place_of(const Target& target, const Axis* axes, u64 thread) {
  u64 block;
  const u64 run = run_of(target, thread, block);
  i64 begin = target.first_run_begin, position = target.first_position + i64(thread * N);
  u64 made = target.first_block + thread;
  if (run) {
    const u64 flat = flat_of_run(target, axes, target.first_run + run, begin);
    made = flat / N + block;
    position = begin + i64(made * N - flat);
  }
  const i64 run_end = begin + i64(target.run_length);
  const i64 end = run_end < i64(target.count) ? run_end : i64(target.count);
  const i64 before = (begin < 0 ? 0 : begin) - position, after = end - position;
  return {made, position, before <= 0 ? 0 : before < N ? int(before) : N, after >= N ? N : after > 0 ? int(after) : 0};
}

// The values of a block, stored at once.
template <class T, int N> struct alignas(sizeof(T) * N) Vector { T v[N]; };

// A store that the compiler cannot merge with a branch that stores the elements one by one.
template <class T, int N> INLINE void store(Vector<T, N>* to, const Vector<T, N>& values) {
  if constexpr (sizeof(values) == 16) {
    __stwb(reinterpret_cast<uint4*>(to), reinterpret_cast<const uint4&>(values));
  } else {
    __stwb(reinterpret_cast<uint2*>(to), reinterpret_cast<const uint2&>(values));
  }
}

template <class Law, class Type>
INLINE void make(const Law& law, const Words& words, u64 block, Vector<typename Type::T, Law::N>& rounded) {
  typename Law::T x[Law::N];
  law(words, block, x);
#ifdef ROUNDS_PAIRS
  if constexpr (sizeof(typename Type::T) == 2) {
    reinterpret_cast<uint2&>(rounded) = {Type::pair(x[0], x[1]), Type::pair(x[2], x[3])};
    return;
  }
#endif
#pragma unroll
  for (int lane = 0; lane < Law::N; lane++) rounded.v[lane] = Type::rounded(x[lane]);
}

// A tile within the first run that stores all of its elements.
template <class Law, class Type> INLINE void sample_inner(const Target& target, const Draw& draw, u64 tile) {
  typedef Vector<typename Type::T, Law::N> Stored;
  const Law law(draw);
  const u64 thread = tile + threadIdx.x, block = target.first_block + thread;
  typename Type::T* first = reinterpret_cast<typename Type::T*>(target.out) + target.first_position;
  Stored* to = reinterpret_cast<Stored*>(first) + thread;
  Words words[ITEMS];
  philox<ITEMS>(block, THREADS, draw.stream, draw.seed, words);
#pragma unroll
  for (u32 item = 0; item < ITEMS; item++) {
    Stored rounded;
    make<Law, Type>(law, words[item], block + item * THREADS, rounded);
    to[item * THREADS] = rounded;
  }
}

// A tile of runs along one axis that consist of whole blocks, such as a range of a matrix's columns.
template <class Law, class Type>
INLINE void sample_whole(const Target& target, const Axis& axis, const Draw& draw, u64 tile, u32 threads) {
  typedef Vector<typename Type::T, Law::N> Stored;
  const Law law(draw);
  u64 block;
  const u64 run = target.first_run + run_of(target, tile + threadIdx.x, block);
  const u64 apart = axis.stride / Law::N, out_apart = axis.out_stride / Law::N;
  u64 made = (target.offset + run * axis.stride) / Law::N + block;
  Stored* to = reinterpret_cast<Stored*>(
      reinterpret_cast<typename Type::T*>(target.out) + target.out_offset + i64(run * axis.out_stride)) + block;
#pragma unroll 1
  for (u32 thread = threadIdx.x; thread < threads; thread += THREADS) {
    Stored rounded;
    make<Law, Type>(law, philox(made, draw.stream, draw.seed), made, rounded);
    store(to, rounded);
    block += target.step_blocks;
    made += target.step_runs * apart + target.step_blocks;
    to += target.step_runs * out_apart + target.step_blocks;
    if (block < target.blocks) continue;
    block -= target.blocks;
    made += apart - target.blocks;
    to += out_apart - target.blocks;
  }
}

template <class Law, class Type>
INLINE void sample_any(const Target& target, const Axis* axes, const Draw& draw, u64 tile, u32 threads) {
  typedef typename Type::T T;
  typedef Vector<T, Law::N> Stored;
  const Law law(draw);
  T* out = reinterpret_cast<T*>(target.out);
#pragma unroll 1
  for (u32 thread = threadIdx.x; thread < threads; thread += THREADS) {
    const Place place = place_of<Law::N>(target, axes, tile + thread);
    if (place.low >= place.high) continue;
    Stored rounded;
    make<Law, Type>(law, philox(place.block, draw.stream, draw.seed), place.block, rounded);
    T* to = out + place.position;
    if (place.low == 0 && place.high == Law::N && u64(to) % sizeof(Stored) == 0) {
      store(reinterpret_cast<Stored*>(to), rounded);
      continue;
    }
#pragma unroll
    for (int lane = 0; lane < Law::N; lane++)
      if (lane >= place.low && lane < place.high) to[lane] = rounded.v[lane];
  }
}

template <class Law, class Type> INLINE void sample(const Draws& table) {
  const u32 number = task_number(table.begins), block = blockIdx.x - table.begins[number];
  const Target& target = table.tasks[number].target;
  const Draw& draw = table.tasks[number].draw;
  const u64 tile = u64(block) * TILE;
  if (block - target.inner_begin < target.inner_tiles) return sample_inner<Law, Type>(target, draw, tile);
  const Axis* axes = table.axes + table.first_axes[number];
  const u32 threads = target.threads - tile < TILE ? u32(target.threads - tile) : TILE;
  if (target.is_whole) return sample_whole<Law, Type>(target, *axes, draw, tile, threads);
  sample_any<Law, Type>(target, axes, draw, tile, threads);
}

#define VALUE(T) const __grid_constant__ T
#define KERNEL(name, Law, Type, ...) \
  extern "C" __global__ void __launch_bounds__(__VA_ARGS__) name(VALUE(Draws) table) { sample<Law, Type>(table); }
#define KERNELS32(law, Law, BLOCKS)                      \
  KERNEL(law##_float32, Law, Float32, THREADS, BLOCKS)   \
  KERNEL(law##_float16, Law, Float16, THREADS, BLOCKS)   \
  KERNEL(law##_bfloat16, Law, Bfloat16, THREADS, BLOCKS)
#define KERNELS(law, Law32, BLOCKS32, Law64, BLOCKS64) \
  KERNELS32(law, Law32, BLOCKS32)                      \
  KERNEL(law##_float64, Law64, Float64, THREADS, BLOCKS64)

// The number of CUDA blocks that a multiprocessor should hold; 8 give the most threads.
KERNELS(uniform, Uniform32, 8, Uniform64, 8)
KERNELS(normal, Normal32, 8, Normal64, 5)
KERNELS(trunc_normal, TruncNormal32, 3, TruncNormal64, 4)
KERNELS32(trunc_near, TruncNormalFloat32<true>, 8)
KERNELS32(trunc_far, TruncNormalFloat32<false>, 8)
KERNELS(sparse, Sparse<Normal32>, 2, Sparse<Normal64>, 2)
KERNELS(constant, Constant<float>, 8, Constant<double>, 8)
KERNEL(disk_float32, Disk32, Float32, THREADS, 8)
KERNEL(disk_normal_float32, DiskNormal32, Float32, THREADS, 8)


// Deterministic laws, contiguous in memory.

struct Repeat { u64 out, count, bits; };

// Packed by cuda_tables.py: the ones of eye and dirac (engine/deterministic.py).
struct Ones {
  i64 start_row, period, columns, start_column, stop_column, row_stride, column_stride, offset, first_row, rows;
  u64 first, count, bits, out;
};

template <class T> INLINE void repeat(const Repeat& task, u32 number) {
  constexpr int N = 16 / sizeof(T);
  T* out = reinterpret_cast<T*>(task.out);
  const u64 tile = u64(number) * TILE, vectors = task.out % 16 ? 0 : task.count / N;
  Vector<T, N> repeated;
#pragma unroll
  for (int lane = 0; lane < N; lane++) repeated.v[lane] = T(task.bits);
#pragma unroll
  for (u32 item = 0; item < ITEMS; item++) {
    const u64 thread = tile + item * THREADS + threadIdx.x;
    if (thread < vectors) {
      reinterpret_cast<Vector<T, N>*>(out)[thread] = repeated;
    } else {
      for (u64 i = thread * N; i < task.count && i < (thread + 1) * N; i++) out[i] = T(task.bits);
    }
  }
}

template <class T> INLINE void ones(const Ones& d, u32 number) {
  const i64 i = i64(u64(number) * THREADS + threadIdx.x), row = d.first_row + i, column = row % d.period;
  if (i >= d.rows || column >= d.columns || column < d.start_column || column >= d.stop_column) return;
  const i64 element = (row - d.start_row) * d.row_stride + (column - d.start_column) * d.column_stride + d.offset;
  const i64 position = element - i64(d.first);
  if (position >= 0 && position < i64(d.count)) reinterpret_cast<T*>(d.out)[position] = T(d.bits);
}

typedef Table<Repeat, REPEAT_TASKS> Repeats;
typedef Table<Ones, ONES_TASKS> AllOnes;

#define DETERMINISTIC_KERNEL(name, function, Tasks, T)                                   \
  extern "C" __global__ void name(VALUE(Tasks) table) {                            \
    const u32 number = task_number(table.begins);                                    \
    function<T>(table.tasks[number], blockIdx.x - table.begins[number]);            \
  }
#define DETERMINISTIC(bits, T)                     \
  DETERMINISTIC_KERNEL(repeat_##bits, repeat, Repeats, T) \
  DETERMINISTIC_KERNEL(ones_##bits, ones, AllOnes, T)

DETERMINISTIC(16, u16)
DETERMINISTIC(32, u32)
DETERMINISTIC(64, u64)
