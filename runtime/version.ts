/** Compares `major.minor.patch` and ignores the rest ("3.2.0.azl2"). What is not a version is older than all. */
export function isAtLeast(version: string, minimum: string): boolean {
  const [mine, least] = [numbers(version), numbers(minimum)];
  for (let i = 0; i < 3; i++) {
    const difference = (mine[i] ?? -1) - (least[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}

const numbers = (version: string): number[] =>
  (/^v?(\d+)\.(\d+)\.(\d+)/.exec(version)?.slice(1) ?? []).map((digits) => Number.parseInt(digits, 10));
