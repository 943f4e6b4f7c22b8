import { expect, test } from "vitest";
import { connectionSettings } from "../../../tools/programs/debian.ts";

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
