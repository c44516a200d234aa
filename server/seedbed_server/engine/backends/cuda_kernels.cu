// The laws of stream v1 for CUDA (docs/stream-v1.md); the bits are those of the numpy reference, whose names these are.
//
// cuda_kernels.py puts the laws' constants and the sizes before this text, as macros (LOG32, THREADS, ...), and compiles it with NVRTC:
// nothing fused, nothing flushed, divisions and roots correctly rounded. tests/engine/test_cuda.py looks at the machine
// code, and runs these kernels on a CPU, through a header that stands in for the few names of CUDA.

typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

#define INLINE __device__ __forceinline__

// Each thread makes ITEMS Philox blocks, THREADS apart, so that a warp's stores are neighbours.
constexpr u32 TILE = THREADS * ITEMS;


// Words: Philox4x32-10.

struct Words { u32 w0, w1, w2, w3; };

// The compiler would add a 0 to the upper half of u64(a) * b.
INLINE u64 product(u32 a, u32 b) { return u64(__umulhi(a, b)) << 32 | a * b; }

INLINE Words philox(u64 block, u64 stream, u64 seed) {
  u32 c0 = u32(block), c1 = u32(block >> 32), c2 = u32(stream), c3 = u32(stream >> 32);
  u32 k0 = u32(seed), k1 = u32(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u64 product0 = product(c0, PHILOX_M0), product1 = product(c2, PHILOX_M1);
    c0 = u32(product1 >> 32) ^ c1 ^ k0;
    c1 = u32(product1);
    c2 = u32(product0 >> 32) ^ c3 ^ k1;
    c3 = u32(product0);
    k0 += PHILOX_W0;
    k1 += PHILOX_W1;
  }
  return {c0, c1, c2, c3};
}

INLINE u64 draw64(u32 low, u32 high) { return (low | u64(high) << 32) >> 11; }


// Functions.

template <class T> INLINE T horner(T, T y) { return y; }

// Horner's rule, highest power first: y x + next, and so on.
template <class T, class... Rest> INLINE T horner(T x, T y, T next, Rest... rest) {
  return horner(x, y * x + next, rest...);
}

// What divides and takes roots has names of its own: their machine code refines an estimate by fused multiply-adds,
// which is how it rounds correctly. The test that nothing else is fused replaces them.
#ifndef WITHOUT_ROOTS
INLINE float root(float x) { return sqrtf(x); }
INLINE double root(double x) { return sqrt(x); }
INLINE double quotient(double x, double y) { return x / y; }
#endif

template <class T> INLINE T clamped(T x, T lowest, T highest) {
  x = x < lowest ? lowest : x;
  return x > highest ? highest : x;
}

// sqrt(-2 ln((w + 1) / 2^32)). With g = -2 f in place of f, the powers of two go into the constants, whose products and
// sums are rounded alike.
INLINE float radius32(u32 w) {
  const bool near_one = w >= SQRT_HALF_DRAW32;
  const float whole = float(near_one ? ~w : w + 1);
  const u32 bits = __float_as_uint(whole) + (0x3F800000u - SQRT_HALF_BITS32);
  const float exponent = __uint_as_float((bits >> 23) + 0x4B000000u) - (8388608.0f + 159.0f);
  const float doubled = __uint_as_float((bits & 0x7FFFFFu) + (SQRT_HALF_BITS32 + (1u << 23)));
  const float k = near_one ? 0.0f : exponent;
  const float g = near_one ? whole * 0x1p-31f : 2.0f - doubled;
  const float z = g * g;
  float y = horner(g, LOG32_HALVED) * g * z;
  y = y + k * (-2 * LN2_LOW32);
  y = y + 0.25f * z;
  return root((g + y) + k * (-2 * LN2_HIGH32));
}

// Cosine and sine of 2 pi w / 2^32.
INLINE void cos_sin32(u32 w, float& cosine, float& sine) {
  const float x = float(i32(w << 2)) * (TURN32 / 4);  // from the nearest quarter turn
  const float z = x * x;
  const u32 s = __float_as_uint(horner(z, SIN32) * z * x + x);
  const u32 c = __float_as_uint((horner(z, COS32) * z * z - 0.5f * z) + 1.0f);
  const u32 quarters = w + (1u << 29);  // in the two highest bits
  const bool odd = quarters & 1u << 30;
  cosine = __uint_as_float((odd ? s : c) ^ ((quarters + (1u << 30)) & 1u << 31));
  sine = __uint_as_float((odd ? c : s) ^ (quarters & 1u << 31));
}

INLINE double log64(double x) {
  const u64 bits = u64(__double_as_longlong(x)) + (0x3FF0000000000000ull - SQRT_HALF_BITS64);
  const double k = double(i32(bits >> 52) - 1023);
  const double f = __longlong_as_double((bits & 0xFFFFFFFFFFFFFull) + SQRT_HALF_BITS64) - 1.0;
  const double s = quotient(f, 2.0 + f);
  const double z = s * s;
  const double r = horner(z, LOG64) * z;
  const double half = 0.5 * f * f;
  return k * LN2_HIGH64 - ((half - (s * (half + r) + k * LN2_LOW64)) - f);
}

// Cosine and sine of 2 pi draw / 2^53.
INLINE void cos_sin64(u64 draw, double& cosine, double& sine) {
  const u64 shifted = draw + (1ull << 50);
  const double x = double(i64(shifted & ((1ull << 51) - 1)) - (1ll << 50)) * TURN64;
  const double z = x * x;
  const u64 s = __double_as_longlong(horner(z, SIN64) * z * x + x);
  const u64 c = __double_as_longlong((horner(z, COS64) * z * z - 0.5 * z) + 1.0);
  const u64 quarters = shifted >> 51;
  const bool odd = quarters & 1;
  cosine = __longlong_as_double((odd ? s : c) ^ ((quarters + 1) & 2) << 62);
  sine = __longlong_as_double((odd ? c : s) ^ (quarters & 2) << 62);
}

// The quantile of the standard normal, from the probabilities below and above it. (Its code is long: one copy.)
__device__ __noinline__ double quantile(double below, double above) {
  const double q = 0.5 * (below - above);
  if (fabs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return quotient(q * horner(r, QUANTILE_CENTRAL0), horner(r, QUANTILE_CENTRAL1));
  }
  const double t = root(-log64(below < above ? below : above));
  const double near = t - 1.6, far = t - 5.0;
  const double tail = t <= 5.0 ? quotient(horner(near, QUANTILE_TAIL0), horner(near, QUANTILE_TAIL1))
                               : quotient(horner(far, QUANTILE_FAR0), horner(far, QUANTILE_FAR1));
  return q < 0 ? -tail : tail;
}


// Laws. Each makes the four float32 or two float64 values of a block from its words.

// What cuda_kernels.py packs as DRAW; the parameters are those of engine/parameters.py, in their order.
struct Draw { u64 seed, stream; double p[7]; u64 rows, columns, zeros, bits, mask_stream; };

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
    const float radius = radius32(w0);
    float cosine, sine;
    cos_sin32(w1, cosine, sine);
    x[0] = mean + std * (radius * cosine);
    x[1] = mean + std * (radius * sine);
  }
  INLINE void operator()(Words w, u64, float* x) const { pair(w.w0, w.w1, x), pair(w.w2, w.w3, x + 2); }
};

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
    const double radius = root(-2.0 * log64(double(draw64(w.w0, w.w1) + 1) * 0x1p-53));
    double cosine, sine;
    cos_sin64(draw64(w.w2, w.w3), cosine, sine);
    x[0] = mean + std * (radius * cosine);
    x[1] = mean + std * (radius * sine);
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


// Sparse: a normal law, and a keyed permutation of each column's rows, by a Feistel network that walks its cycles.

INLINE u32 mixed(u32 half, u32 key) {  // MurmurHash3's finaliser
  u32 h = half ^ key;
  h = (h ^ h >> 16) * 0x85EBCA6Bu;
  h = (h ^ h >> 13) * 0xC2B2AE35u;
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
      : normal(d), seed(d.seed), rows(d.rows), columns(d.columns), zeros(d.zeros), stream(d.mask_stream),
        bits(u32(d.bits)) {}
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
      if (row < rows && is_zero(row, column)) covered |= 1u << lane;  // a block may go on after the last row
      if (++column == columns) row++, column = 0;
    }
#pragma unroll
    for (int lane = 0; lane < N; lane++) x[lane] = covered & 1u << lane ? 0 : x[lane];
  }
};


// Types: what is stored of a law's values.

struct Float32 { typedef float T; static INLINE T rounded(float x) { return x; } };
struct Float64 { typedef double T; static INLINE T rounded(double x) { return x; } };

struct Bfloat16 {
  typedef u16 T;
  static INLINE T rounded(float x) {
    const u32 b = __float_as_uint(x);
    return u16((b + (0x7FFFu + (b >> 16 & 1u))) >> 16);
  }
};

struct Float16 {
  typedef u16 T;
  static INLINE T rounded(float x) {
    const u32 b = __float_as_uint(x), magnitude = b & 0x7FFFFFFFu, sign = b >> 16 & 0x8000u;
    const u32 normal = (magnitude - 0x38000000u + (0xFFFu + (magnitude >> 13 & 1u))) >> 13;
    // Half precision's subnormals are multiples of 2^-24, the spacing of float32 from 1/2 to 1.
    const u32 subnormal = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3F000000u;
    return u16(sign | (magnitude >= 0x38800000u ? normal : subnormal));
  }
};


// Regions, as runs of consecutive flat indices. A thread's number says which block of which run it makes: those of the
// part's first run come first, then as many for each run as any can have, so that some threads may have nothing to do.

// What cuda_kernels.py packs as PART: which elements of a tensor to make, and where in ``out`` they go.
struct Part {
  u64 count;                     // of the elements that ``out`` has
  u64 run_length, first_run;
  u64 first_run_flat;            // the flat index at which the first run begins
  i64 first_run_begin;           // and its position, perhaps before ``out``
  u64 skipped, head;             // of the first run: the blocks before ``out``, and those from there on
  u64 blocks;                    // of each later run
  u64 threads;
  u64 inner_begin, inner_end;    // threads of the first run all of whose elements are wanted, if stores are aligned
  i64 out_offset;                // the position of run 0
  u64 offset;                    // and its flat index
  u64 dimensions;                // beyond those that a run covers, whose extents and strides these are
  u64 extents[MAX_OUTER_DIMENSIONS], strides[MAX_OUTER_DIMENSIONS], out_strides[MAX_OUTER_DIMENSIONS];
};

// Where a block's elements go: the position of its first in ``out``, and those between which it may write.
struct Place { u64 block; i64 position, begin, end; };

// The flat index at which a run begins, and its position.
INLINE u64 flat_of_run(const Part& part, u64 run, i64& begin) {
  u64 flat = part.offset;
  begin = part.out_offset;
#pragma unroll 1
  for (int axis = int(part.dimensions) - 1; axis > 0; axis--) {
    u64 coordinate;
    run = quotient_and_rest(run, part.extents[axis], coordinate);
    flat += coordinate * part.strides[axis];
    begin += i64(coordinate * part.out_strides[axis]);
  }
  begin += i64(run * part.out_strides[0]);
  return flat + run * part.strides[0];
}

template <int N> INLINE Place place_of(const Part& part, u64 thread) {
  u64 flat = part.first_run_flat, j = thread + part.skipped;
  i64 begin = part.first_run_begin;
  if (thread >= part.head) {
    const u64 run = part.first_run + 1 + quotient_and_rest(thread - part.head, part.blocks, j);
    flat = flat_of_run(part, run, begin);
  }
  const u64 block = flat / N + j;
  const i64 end = begin + i64(part.run_length);
  return {block, begin + i64(block * N - flat), begin < 0 ? 0 : begin, end < i64(part.count) ? end : i64(part.count)};
}

// As many bytes as a block's values have, stored at once.
template <class T, int N> struct alignas(sizeof(T) * N) Vector { T v[N]; };

template <class Law, class Type>
INLINE void make(const Law& law, const Draw& draw, u64 block, Vector<typename Type::T, Law::N>& rounded) {
  typename Law::T x[Law::N];
  law(philox(block, draw.stream, draw.seed), block, x);
#pragma unroll
  for (int lane = 0; lane < Law::N; lane++) rounded.v[lane] = Type::rounded(x[lane]);
}

template <class Law, class Type> INLINE void sample(const Part& part, const Draw& draw, typename Type::T* out) {
  typedef Vector<typename Type::T, Law::N> Stored;
  const Law law(draw);
  const u64 tile = u64(blockIdx.x) * TILE, thread = tile + threadIdx.x;
  if (tile >= part.inner_begin && tile + TILE <= part.inner_end) {
    const Place place = place_of<Law::N>(part, thread);
    Stored* to = reinterpret_cast<Stored*>(out + place.position);
#pragma unroll
    for (u32 item = 0; item < ITEMS; item++) {
      Stored rounded;
      make<Law, Type>(law, draw, place.block + item * THREADS, rounded);
      to[item * THREADS] = rounded;
    }
    return;
  }
#pragma unroll 1
  for (u32 item = 0; item < ITEMS; item++) {
    if (thread + item * THREADS >= part.threads) return;
    const Place place = place_of<Law::N>(part, thread + item * THREADS);
    if (place.position >= place.end || place.position + Law::N <= place.begin) continue;
    Stored rounded;
    make<Law, Type>(law, draw, place.block, rounded);
    Stored* to = reinterpret_cast<Stored*>(out + place.position);
    if (place.position >= place.begin && place.position + Law::N <= place.end && u64(to) % sizeof(Stored) == 0) {
      *to = rounded;
      continue;
    }
#pragma unroll
    for (int lane = 0; lane < Law::N; lane++) {
      const i64 position = place.position + lane;
      if (position >= place.begin && position < place.end) out[position] = rounded.v[lane];
    }
  }
}

#define VALUE(T) const __grid_constant__ T
#define KERNEL(name, Law, Type, ...)                                                         \
  extern "C" __global__ void __launch_bounds__(__VA_ARGS__)                                  \
      name(VALUE(Part) part, VALUE(Draw) draw, Type::T* out) { sample<Law, Type>(part, draw, out); }
#define KERNELS(law, Law32, Law64, ...)                \
  KERNEL(law##_float32, Law32, Float32, __VA_ARGS__)   \
  KERNEL(law##_float16, Law32, Float16, __VA_ARGS__)   \
  KERNEL(law##_bfloat16, Law32, Bfloat16, __VA_ARGS__) \
  KERNEL(law##_float64, Law64, Float64, __VA_ARGS__)

// Without the 8, uniform takes a few registers more than lets a multiprocessor run as many threads as it can.
KERNELS(uniform, Uniform32, Uniform64, THREADS, 8)
KERNELS(normal, Normal32, Normal64, THREADS)
KERNELS(trunc_normal, TruncNormal32, TruncNormal64, THREADS)
KERNELS(sparse, Sparse<Normal32>, Sparse<Normal64>, THREADS)


// The laws without chance.

// What cuda_kernels.py packs as DIAGONAL: where the ones of eye and dirac are (engine/deterministic.py).
struct Diagonal {
  i64 start_row, period, columns, start_column, stop_column, row_stride, column_stride, offset, first_row, rows;
};

template <class T> INLINE void repeat(u64 count, T bits, T* out) {
  constexpr int N = 16 / sizeof(T);
  const u64 tile = u64(blockIdx.x) * TILE, vectors = reinterpret_cast<u64>(out) % 16 ? 0 : count / N;
  Vector<T, N> repeated;
#pragma unroll
  for (int lane = 0; lane < N; lane++) repeated.v[lane] = bits;
#pragma unroll
  for (u32 item = 0; item < ITEMS; item++) {
    const u64 thread = tile + item * THREADS + threadIdx.x;
    if (thread < vectors) {
      reinterpret_cast<Vector<T, N>*>(out)[thread] = repeated;
    } else {
      for (u64 i = thread * N; i < count && i < (thread + 1) * N; i++) out[i] = bits;
    }
  }
}

template <class T> INLINE void ones(const Diagonal& d, u64 first, u64 count, T one, T* out) {
  const i64 i = i64(u64(blockIdx.x) * THREADS + threadIdx.x), row = d.first_row + i, column = row % d.period;
  if (i >= d.rows || column >= d.columns || column < d.start_column || column >= d.stop_column) return;
  const i64 element = (row - d.start_row) * d.row_stride + (column - d.start_column) * d.column_stride + d.offset;
  const i64 position = element - i64(first);
  if (position >= 0 && position < i64(count)) out[position] = one;
}

// One value in all elements of some runs, of which ``skipped`` elements come before the first that is wanted.
template <class T> INLINE void set(const Part& part, T bits, T* out) {
#pragma unroll 1
  for (u32 item = 0; item < ITEMS; item++) {
    const u64 thread = u64(blockIdx.x) * TILE + item * THREADS + threadIdx.x;
    if (thread >= part.threads) return;
    u64 element, run = quotient_and_rest(thread + part.skipped, part.run_length, element);
    i64 begin;
    flat_of_run(part, part.first_run + run, begin);
    out[begin + i64(element)] = bits;
  }
}

#define DETERMINISTIC(bits, T)                                                                                \
  extern "C" __global__ void repeat_##bits(u64 count, u64 value, T* out) { repeat(count, T(value), out); }    \
  extern "C" __global__ void ones_##bits(VALUE(Diagonal) d, u64 first, u64 count, u64 one, T* out) {          \
    ones(d, first, count, T(one), out);                                                                       \
  }                                                                                                           \
  extern "C" __global__ void set_##bits(VALUE(Part) part, u64 value, T* out) { set(part, T(value), out); }

DETERMINISTIC(16, u16)
DETERMINISTIC(32, u32)
DETERMINISTIC(64, u64)
