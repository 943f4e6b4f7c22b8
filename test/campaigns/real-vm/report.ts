/** Where a campaign tells what it does and what it finds. */
export function expectations() {
  const began = Date.now();
  let failed = 0;
  const tell = (line: string) => console.log(`[${Math.round((Date.now() - began) / 1000)} s] ${line}`);
  return {
    tell,
    expect: (what: string, holds: boolean): void => {
      tell(`${holds ? "held" : "FAILED"}: ${what}`);
      if (!holds) failed += 1;
    },
    failures: (): number => failed,
  };
}
