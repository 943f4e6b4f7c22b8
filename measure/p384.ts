/**
 * Just enough of NIST P-384 (SEC 2, section 2.5.1) to recover a public key from a signature; node:crypto offers no point
 * arithmetic. Only public values pass through here, so nothing needs to be constant-time.
 */
const p = 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n;
const n = 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n;
const b = 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn;
const generator: Point = {
  x: 0xaa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7n,
  y: 0x3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5fn,
};

export interface Point {
  x: bigint;
  y: bigint;
}
/** Jacobian coordinates: (X/Z², Y/Z³); Z = 0 is the point at infinity. */
type Jacobian = readonly [bigint, bigint, bigint];

const mod = (value: bigint, modulus = p) => ((value % modulus) + modulus) % modulus;

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  for (let square = mod(base, modulus); exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) result = (result * square) % modulus;
    square = (square * square) % modulus;
  }
  return result;
}

function double([x, y, z]: Jacobian): Jacobian {
  const delta = mod(z * z);
  const gamma = mod(y * y);
  const beta = mod(x * gamma);
  const alpha = mod(3n * (x - delta) * (x + delta)); // a = -3
  const x3 = mod(alpha * alpha - 8n * beta);
  return [x3, mod(alpha * (4n * beta - x3) - 8n * gamma * gamma), mod((y + z) ** 2n - gamma - delta)];
}

function add(left: Jacobian, right: Jacobian): Jacobian {
  const [x1, y1, z1] = left;
  const [x2, y2, z2] = right;
  if (z1 === 0n) return right;
  if (z2 === 0n) return left;
  const [zz1, zz2] = [mod(z1 * z1), mod(z2 * z2)];
  const [u1, u2] = [mod(x1 * zz2), mod(x2 * zz1)];
  const [s1, s2] = [mod(y1 * z2 * zz2), mod(y2 * z1 * zz1)];
  if (u1 === u2) return s1 === s2 ? double(left) : [0n, 1n, 0n];
  const h = mod(u2 - u1);
  const i = mod(4n * h * h);
  const j = mod(h * i);
  const r = mod(2n * (s2 - s1));
  const v = mod(u1 * i);
  const x3 = mod(r * r - j - 2n * v);
  return [x3, mod(r * (v - x3) - 2n * s1 * j), mod(((z1 + z2) ** 2n - zz1 - zz2) * h)];
}

function multiply(scalar: bigint, point: Jacobian): Jacobian {
  let result: Jacobian = [0n, 1n, 0n];
  for (const bit of scalar.toString(2)) {
    result = double(result);
    if (bit === "1") result = add(result, point);
  }
  return result;
}

function affine([x, y, z]: Jacobian): Point {
  const inverse = power(z, p - 2n, p);
  return { x: mod(x * inverse ** 2n), y: mod(y * inverse ** 3n) };
}

const jacobian = (point: Point): Jacobian => [point.x, point.y, 1n];

/**
 * The two public keys under which (r, s) is an ECDSA signature of the digest (SEC 1, section 4.1.6):
 * Q = r⁻¹(s·R − z·G), R being either point with x-coordinate r.
 */
export function recoverKeys(digest: Uint8Array, r: bigint, s: bigint): [Point, Point] {
  const y = power(r ** 3n - 3n * r + b, (p + 1n) / 4n, p);
  if (mod(y * y - (r ** 3n - 3n * r + b)) !== 0n) throw new RangeError(`no point of P-384 has x-coordinate ${r}`);
  const z = mod(BigInt(`0x${Buffer.from(digest).toString("hex")}`), n);
  const inverse = power(r, n - 2n, n);
  const zG = multiply(n - z, jacobian(generator));
  const candidate = (ry: bigint) => affine(multiply(inverse, add(multiply(mod(s, n), jacobian({ x: r, y: ry })), zG)));
  return [candidate(y), candidate(mod(-y))];
}
