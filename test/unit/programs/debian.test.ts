import { expect, test } from "vitest";
import { Refusal } from "../../../node-installer/runtime/refusal.ts";
import { connectionSettings, explainKeyring } from "../../../tools/programs/debian.ts";

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
