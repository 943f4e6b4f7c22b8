import { describe, expect, test } from "vitest";
import { advisories, assess, explainOpen } from "../../../runtime/advisories.ts";
import { flavourNames, pairs } from "../../../runtime/flavours.ts";
import { type PlatformName, platformNames } from "../../../runtime/spec.ts";
import { fixtureAdvisories, fixtureManifest } from "./fixtures.ts";

const of = (flavour: string, kataVersion: string, platform: PlatformName = "metal-qemu-snp", kernelParams = "") =>
  assess({ platform, manifest: { flavour, kataVersion, guest: { kernelParams } } });
const open = (...words: Parameters<typeof of>) => of(...words).open.map(({ id }) => id);
const closed = (...words: Parameters<typeof of>) =>
  of(...words).closed.map(({ advisory }) => advisory.aliases[0] ?? advisory.id);

const [mounts, copyFile, layers] = ["GHSA-fmg6-v47x-52wr", "GHSA-q49m-57vm-c8cc", "GHSA-5fc8-gg7w-3g5c"];

describe("the holes of a Kata", () => {
  test.each<[...Parameters<typeof of>]>([
    ["kata-go", "4.1.0"],
    ["kata-go", "4.2.0", "metal-qemu-tdx"],
    ["kata-rs", "4.1.0"],
    ["contrast-go", "4.3.0", "metal-qemu-snp-gpu"],
    ["none", "none", "local"],
  ])("none is open in %s %s", (...words) => expect(open(...words)).toEqual([]));

  test.each<[string[], ...Parameters<typeof of>]>([
    [[mounts], "kata-go", "4.0.0"],
    [[mounts], "kata-rs", "4.0.0"],
    // A pre-release is not the release that has the fix; what is no version is older than all.
    [[mounts], "kata-go", "4.1.0-rc0"],
    [[mounts], "kata-go", "4.1.0rc1"],
    [[mounts], "contrast-go", "4.1.0~beta"],
    [[mounts, copyFile], "contrast-go", "someday"],
    [[mounts], "kata-go", "3.29.0"],
    [[mounts, copyFile], "kata-go", "3.28.0"],
    [[mounts, copyFile], "contrast-go", "3.17.0"],
    [[mounts, copyFile], "contrast-go", "3.21.0", "metal-qemu-tdx"],
    [[mounts, layers], "contrast-go", "3.2.0.azl2", "aks-clh-snp"],
    [[mounts, copyFile, layers], "contrast-go", "3.15.0.aks0", "aks-clh-snp"],
  ])("open: %j in %s %s", (expected, ...words) => expect(open(...words)).toEqual(expected));

  test("what is rendered here closes some, and says why", () => {
    expect(closed("kata-go", "3.30.0")).toEqual([
      "kata-4.3.0-annotation-allowlist",
      "CVE-2026-50540",
      "CVE-2026-64676",
      "CVE-2026-44210",
    ]);
    expect(closed("kata-go", "4.2.0")).toEqual(["kata-4.3.0-annotation-allowlist"]);
    expect(closed("kata-go", "4.3.0")).toEqual([]);
    expect(closed("contrast-go", "3.2.0.azl2", "aks-clh-snp")).toContain("CVE-2026-24834");
    expect(closed("kata-rs", "4.0.0")).not.toContain("CVE-2026-50540");
    // A guest whose command line switches on what is off otherwise.
    const agent = "GHSA-h8jv-63p2-496x";
    expect(open("kata-go", "3.30.0", "metal-qemu-snp", "quiet agent.mem_agent_enable=1")).toEqual([mounts, agent]);
    expect(open("kata-go", "3.30.0", "metal-qemu-snp", "agent.config_file=/x")).toEqual([mounts, agent]);
  });

  test("every entry has a source, a sentence, and a range that some supported payload can be in", () => {
    for (const { id, aliases, allows, source, fixedIn, from, flavours } of advisories) {
      expect(source, id).toMatch(/^https:\/\/github\.com\/kata-containers\//);
      expect(allows, id).toMatch(/^[A-Z].*\.$/);
      expect(`${fixedIn} ${from ?? fixedIn}`, id).toMatch(/^\d+\.\d+\.0 \d+\.\d+\.0$/);
      for (const alias of aliases) expect(alias, id).toMatch(/^CVE-\d{4}-\d+$/);
      const reached = flavours.flatMap((flavour) =>
        platformNames.flatMap((platform) => {
          const pair = pairs[flavour][platform];
          // Microsoft's builds for AKS go on to 3.15.
          const versions = !pair.supported ? [] : platform === "aks-clh-snp" ? [pair.from, "3.15.0.aks0"] : [pair.from];
          return versions.flatMap((version) => {
            const { open, closed } = of(flavour, version, platform);
            return [...open, ...closed.map(({ advisory }) => advisory)].filter((one) => one.id === id);
          });
        }),
      );
      expect(reached.length, id).toBeGreaterThan(0);
    }
    const names = advisories.flatMap(({ id, aliases }) => [id, ...aliases]);
    expect(new Set(names).size).toBe(names.length);
    expect(flavourNames).toEqual(expect.arrayContaining([...(advisories[0]?.flavours ?? [])]));
  });
});

describe("acknowledgements", () => {
  const subject = { platform: "metal-qemu-snp", manifest: fixtureManifest("contrast-go") } as const;
  const mistakes = (...words: string[]) => assess(subject, words).mistakes;

  test("an id or an alias, in any case, for each hole", () => {
    for (const words of [fixtureAdvisories["contrast-go"], ["cve-2026-77176"]]) {
      const { open, acknowledged, mistakes } = assess(subject, words);
      expect([open, mistakes]).toEqual([[], []]);
      expect(acknowledged.map(({ id }) => id)).toEqual(fixtureAdvisories["contrast-go"]);
    }
    const older = { ...subject, manifest: { ...subject.manifest, kataVersion: "3.28.0" } };
    expect(assess(older, [mounts]).open.map(({ id }) => id)).toEqual([copyFile]);
    // It applies, although it cannot be used here.
    expect(mistakes("CVE-2026-50540")).toEqual([]);
  });

  test("a word that is none, and one that says nothing about this payload, are mistakes", () => {
    expect(mistakes(mounts, "GHSA-fmg6-v47x-52wx", "everything")).toEqual([
      {
        index: 1,
        message: `"GHSA-fmg6-v47x-52wx" is no advisory that is known here. Did you mean GHSA-fmg6-v47x-52wr? Those of Kata 3.31.0 (contrast-go) on metal-qemu-snp: kata-4.3.0-annotation-allowlist, ${mounts}, GHSA-mp2j-xm59-qfgw, GHSA-h8jv-63p2-496x.`,
      },
      { index: 2, message: expect.stringMatching(/^"everything" is no advisory that is known here\. Those of/) },
    ]);
    expect(mistakes(copyFile)).toEqual([
      {
        index: 0,
        message: expect.stringMatching(/^"GHSA-q49m-57vm-c8cc" does not apply to Kata 3\.31\.0 .*: remove it\./),
      },
    ]);
    expect(mistakes("__proto__", "")).toHaveLength(2);
  });

  test("the explanation names each hole, what it allows, the version without it, and how to say that it is known", () => {
    const text = explainOpen(assess(subject).open, (ids) => `say ${ids.join(" ")}`);
    expect(text).toContain("GHSA-fmg6-v47x-52wr (CVE-2026-77176): The host mounts guest paths");
    expect(text).toContain(`See https://github.com/kata-containers/kata-containers/security/advisories/${mounts}.`);
    expect(text).toMatch(
      /Lock a payload of Kata 4\.1\.0 or later and list it beside this one; while workloads still need this one, say that you know: say GHSA-fmg6-v47x-52wr\.$/,
    );
  });
});
