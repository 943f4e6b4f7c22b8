import { X509Certificate } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { authorities, outdated } from "../../../../components/config/certificates.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import { certificate } from "../../../fixtures/certificates.ts";

const [authority, another] = [certificate("authority"), certificate("another")];
const body = authority.split("\n").slice(1, -2).join("\n");
const block = (content: string) => `-----BEGIN CERTIFICATE-----\n${content}\n-----END CERTIFICATE-----\n`;

describe("certificates of authorities come out in one form, and nothing else", () => {
  test.each([
    ["one", authority, authority],
    ["two", authority + another, authority + another],
    ["with comments around", `# Example\n${authority}\nsubject=$(id)\nCONTENT\n${another}# end`, authority + another],
    ["without its last newline", authority.trimEnd(), authority],
    ["of Windows", authority.replaceAll("\n", "\r\n"), authority],
    ["in lines of another length", block(body.replaceAll("\n", "")), authority],
    ["of Windows, with the mark of its encoding", `\ufeff${authority}`, authority],
    ["indented as a whole", authority.replaceAll(/^(?=.)/gm, "    "), authority],
    ["indented", block(body.replaceAll(/^/gm, "  ")), authority],
    ["that vouches for itself", certificate("vouches-for-itself"), certificate("vouches-for-itself")],
  ])("%s", (_, pem, canonical) => {
    expect(authorities(pem)).toBe(canonical);
    expect(authorities(canonical)).toBe(canonical);
  });
});

describe("what is no certificate of an authority is refused", () => {
  const der = Buffer.from(body, "base64");
  test.each([
    ["nothing", "", "has no certificate"],
    ["a path", "/etc/ssl/ca.pem", "has no certificate"],
    ["a command inside", block(`${body}\nCONTENT\ntouch /tmp/x`), "other than base64"],
    ["a command in place of a line", block("CONTENT\ntouch /tmp/x"), "other than base64"],
    ["letters that are base64", block("CONTENT"), "other than base64"],
    ["no content", block(""), "other than base64"],
    ["base64 of something else", block(Buffer.from("touch /tmp/x").toString("base64")), "cannot be parsed"],
    ["half a certificate", block(der.subarray(0, 200).toString("base64")), "cannot be parsed"],
    ["a certificate and more", block(Buffer.concat([der, Buffer.from(";id\n")]).toString("base64")), "more than"],
    ["PEM within PEM", block(Buffer.from(authority).toString("base64")), "more than a certificate"],
    ["a key beside it", `${authority}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n`, "do not belong"],
    [
      "an indented key",
      `${authority}  -----BEGIN PRIVATE KEY-----\n  AAAA\n  -----END PRIVATE KEY-----\n`,
      "do not belong",
    ],
    ["a block that does not end", authority.replace(/-----END.*/s, ""), "without its other"],
    ["a block in a block", block(authority), "without its other"],
    ["an end alone", `-----END CERTIFICATE-----\n${authority}`, "without its other"],
    ["a server's certificate", certificate("server"), '"CN=mirror.example", which is a server\'s own'],
    ["too much", authority.repeat(2000), "is longer than"],
  ])("%s", (_, pem, says) => {
    const refused = () => authorities(pem);
    expect(refused).toThrow(Refusal);
    expect(refused).toThrow(says);
    expect(refused).not.toThrow("touch");
  });
});

test("whatever stands in or around the lines: what is accepted are the certificates that were there", () => {
  const line = fc.oneof(
    fc.constantFrom(...authority.split("\n"), ...another.split("\n"), "CONTENT", "$(id)", "'", "-----BEGIN X-----"),
    fc.string(),
  );
  const known = new Set([authority, another].map((pem) => new X509Certificate(pem).fingerprint256));
  const texts = fc.array(fc.oneof(line, fc.constant(authority), fc.constant(another)), { maxLength: 12 });
  fc.assert(
    fc.property(texts, (lines) => {
      let accepted: string;
      try {
        accepted = authorities(lines.join("\n"));
      } catch (error) {
        expect(error).toBeInstanceOf(Refusal);
        return;
      }
      const blocks =
        accepted.match(/-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/]{1,64}=*\n)+-----END CERTIFICATE-----\n/g) ?? [];
      expect(blocks.join("")).toBe(accepted);
      for (const pem of blocks) expect(known).toContain(new X509Certificate(pem).fingerprint256);
    }),
  );
});

test("says which certificate is not valid now, by its name", () => {
  const at = (year: number) => outdated(authority + another, new Date(Date.UTC(year, 0)));
  expect(at(2027)).toEqual([]);
  expect(at(2020)).toEqual([
    expect.stringMatching(/^"O=Example CN=Example Authority" is valid from Nov 29 .* 2026 GMT\.$/),
    expect.stringMatching(/^"CN=Another Authority" is valid from /),
  ]);
  expect(at(2200)[1]).toMatch(/^"CN=Another Authority" expired on .* 2126 GMT\.$/);
});
