import { expect, test } from "vitest";
import { Refusal } from "../../../../runtime/refusal.ts";
import { connectionSettings, explainKeyring, readUris } from "../../../../tools/programs/debian.ts";

test("a tree is fetched as this machine's apt fetches: its proxies and certificates, nothing else of its settings", () => {
  const dump = `APT::Install-Recommends "1";
Acquire "";
Acquire::Languages "";
Acquire::cdrom::mount "/media/cdrom/";
Acquire::http "";
Acquire::http::Proxy "http://user:secret@proxy:3128";
Acquire::http::Proxy::deb.example.org "DIRECT";
Acquire::https::CaInfo "/etc/ssl/company.pem";
`;
  expect(connectionSettings(dump)).toEqual([
    'Acquire::http::Proxy "http://user:secret@proxy:3128";',
    'Acquire::http::Proxy::deb.example.org "DIRECT";',
    'Acquire::https::CaInfo "/etc/ssl/company.pem";',
  ]);
});

test("a keyring without the suite's keys is reported with what to install; other failures stay unchanged", () => {
  const explain = explainKeyring("trixie");
  const unsigned = "apt-get -q update failed (exit 100):\n  W: GPG error: … NO_PUBKEY 6ED0E7B82643E131";
  expect(() => explain(new Refusal("program-failed", unsigned))).toThrow(
    /^This machine's package debian-archive-keyring is too old to check Debian trixie\. Install .*\n.*NO_PUBKEY/s,
  );
  const offline = new Refusal("program-failed", "apt-get -q update failed (exit 100):\n  Temporary failure resolving");
  expect(() => explain(offline)).toThrow(offline);
});

test("apt's list of addresses becomes pins: epoch and signs decoded, main archive and security updates told apart", () => {
  const [one, other] = ["a".repeat(64), "b".repeat(64)];
  const uris = `'http://deb.debian.org/debian/pool/main/b/busybox/busybox-static_1.37.0-6%2bb9_amd64.deb' busybox-static_1%3a1.37.0-6+b9_amd64.deb 955316 SHA256:${one}
'https://mirror.example.com/debian-security/pool/updates/main/g/glibc/libc6_2.41-12%2bdeb13u6_amd64.deb' libc6_2.41-12+deb13u6_amd64.deb 2850108 SHA256:${other}
`;
  expect(readUris(uris)).toEqual([
    {
      name: "busybox-static",
      version: "1:1.37.0-6+b9",
      archive: "debian",
      path: "pool/main/b/busybox/busybox-static_1.37.0-6+b9_amd64.deb",
      sha256: one,
    },
    {
      name: "libc6",
      version: "2.41-12+deb13u6",
      archive: "debian-security",
      path: "pool/updates/main/g/glibc/libc6_2.41-12+deb13u6_amd64.deb",
      sha256: other,
    },
  ]);
  expect(() => readUris("'http://x/debian/pool/a_1_all.deb' a_1_all.deb 1 MD5Sum:00")).toThrow(
    /what is not understood/,
  );
});
