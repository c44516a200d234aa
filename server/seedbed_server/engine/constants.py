"""The constants of stream v1, shared by all backends; docs/stream-v1.md lists them with their sources.

Polynomial coefficients are listed from the highest power down. Values for float32 are rounded to float32 at their point
of use. The CUDA kernels get these constants as macros (backends/cuda_kernels.py).
"""

from __future__ import annotations

import math

# Philox4x32: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (2011). Multipliers and key increments.
PHILOX_ROUNDS = 10
PHILOX_M = (0xD2511F53, 0xCD9E8D57)
PHILOX_W = (0x9E3779B9, 0xBB67AE85)

# -2 ln(1 - h/2) = h + h^2 LOG(h) for h in [0, 1]. Fitted to the smallest relative error: 2^-28, 2^-55.
LOG32 = (
    3.4051598e-03, -9.673636e-03, 1.5397904e-02, -9.254201e-03, 1.0627132e-02, 1.0992159e-02, 3.148358e-02,
    8.331581e-02, 2.5000045e-01,
)  # fmt: skip
LOG64 = (
    1.8637781990062007e-05, -0.00014774059987681415, 0.0005558329959428116, -0.0012945615236272647,
    0.0020831959251222027, -0.0024375509765318087, 0.002151028515066266, -0.0014353718463632334,
    0.0007672925426327746, -0.00025872920218515964, 0.00018080046460160353, 0.0001738095686739658,
    0.00043778291063295446, 0.0009760848496013021, 0.0022321854832041406, 0.0052083308082451355,
    0.012500000091151155, 0.031249999998264083, 0.08333333333334643, 0.24999999999999997,
)  # fmt: skip
TWO_LN2 = 1.3862943611198906

# sin(pi/4 x) = x pi/4 + x SIN(x^2) and cos(pi/4 x) = 1 + x^2 COS(x^2) for x in [-1, 1]; the last coefficient of SIN is
# the rounding error of pi/4. Relative errors of 2^-28 and 2^-31 in float32, 2^-56.7 and 2^-55.1 in float64.
EIGHTH_TURN = 0.7853981633974483  # pi / 4
SIN32 = (-3.5957124e-05, 2.4900113e-03, -8.0745436e-02, -2.439898e-08)
COS32 = (3.494037e-06, -3.2586866e-04, 1.5854284e-02, -3.0842513e-01)
SIN64 = (
    6.877360573166326e-12, -1.7571500746983935e-09, 3.133616225433416e-07, -3.657620415891387e-05,
    0.002490394570188844, -0.08074551218828054, 2.8144383096987086e-17,
)  # fmt: skip
COS64 = (
    -3.863156948832656e-13, 1.1500679700940496e-10, -2.4611366238309744e-08, 3.590860447448612e-06,
    -0.0003259918869271996, 0.015854344243815488, -0.30842513753404244,
)  # fmt: skip

# The standard deviation of each part of a complex normal whose variance is 1.
SQRT_HALF = math.sqrt(0.5)

# The normal quantile in float32, of the probability t of the nearer tail; the errors are those of the polynomials.
MIDDLE_FROM32 = 0.158  # 1.0027 standard deviations from the mean
# For larger t, with x = 1 - 2 t: x MIDDLE_SLOPE + x MIDDLE(x^2), 0.4 ulp.
MIDDLE_SLOPE32 = 1.2533141
MIDDLE32 = (
    3.9163038e-01, -2.998023e-01, 2.4237792e-01, 5.047956e-02, 1.277339e-01, 1.8006028e-01, 3.2812464e-01,
    -2.985963e-08,
)  # fmt: skip
MIDDLE_LARGEST32 = 1.0027117  # NEAR at MIDDLE_FROM, FAR within 1 ulp of it: the quantile rises across the seam
# For 0.02 <= t <= MIDDLE_FROM: NEAR(sqrt(t) - NEAR_CENTRE), 0.2 ulp.
NEAR_TAIL = 0.02
NEAR_CENTRE32 = 0.25
NEAR32 = (
    4.6723082e+04, -2.214639e+04, 4.975354e+03, -1.1558873e+03, 3.575412e+02, -1.139399e+02, 3.6104343e+01,
    -1.3203007e+01, 4.547421e+00, -4.065572e+00, 1.5341206e+00,
)  # fmt: skip
# For 2^-34 <= t <= MIDDLE_FROM: FAR(sqrt(-2 ln t) - FAR_CENTRE), 0.3 ulp.
FAR_CENTRE32 = 2.6875
FAR32 = (
    -4.758446e-09, 1.1148036e-07, -1.1531592e-06, 7.0722413e-06, -2.9878036e-05, 1.0024683e-04, -3.1218448e-04,
    1.0008857e-03, -3.3516474e-03, 1.1625443e-02, -4.2136066e-02, 1.1642519e+00, 1.9265809e+00,
)  # fmt: skip

# The normal quantile in float64: Wichura, Algorithm AS 241, PPND16 (1988). Each pair is a numerator and a denominator.
# With q the distance of the probability from one half: CENTRAL in HALF_WIDTH^2 - q^2 for |q| <= HALF_WIDTH. Otherwise,
# with r = sqrt(-ln t) of the nearer tail t: TAIL in r - TAIL_SHIFT for r <= FAR_SHIFT, FAR in r - FAR_SHIFT beyond.
QUANTILE_HALF_WIDTH = 0.425
QUANTILE_HALF_WIDTH_SQUARED = 0.180625
QUANTILE_TAIL_SHIFT = 1.6
QUANTILE_FAR_SHIFT = 5.0
QUANTILE_CENTRAL = (
    (
        2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
        1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
        5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0,
    ),
)  # fmt: skip
QUANTILE_TAIL = (
    (
        7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
        3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
        6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0,
    ),
)  # fmt: skip
QUANTILE_FAR = (
    (
        2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
        2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
        1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0,
    ),
)  # fmt: skip

# The Feistel network of sparse and permutation. With fewer than 12 rounds, some sets of rows come up too often.
FEISTEL_ROUNDS = 16
# The multipliers of its round function, MurmurHash3's 32-bit finaliser (Appleby 2011).
MURMUR_M = (0x85EBCA6B, 0xC2B2AE35)

# Columns of a block of reflections in orthogonal.
ORTHOGONAL_BLOCK = 64
