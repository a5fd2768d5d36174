// Every example payload of GitHub and of its enterprise servers, signed by GitHub's own library, one JSON object a line.
import { readFileSync, readdirSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [modules, secret] = process.argv.slice(2);
// This script lies outside the folder of the packages, where Node does not look by itself.
const entry = `${modules}/@octokit/webhooks-methods/dist-node/index.js`;
const { sign } = await import(pathToFileURL(entry));
const examples = `${modules}/@octokit/webhooks-examples`;
const folders = readdirSync(examples, { withFileTypes: true }).filter((entry) => entry.isDirectory());

for (const folder of folders) {
  for (const { name, examples: bodies } of JSON.parse(readFileSync(`${examples}/${folder.name}/index.json`))) {
    for (const example of bodies) {
      const body = JSON.stringify(example);
      process.stdout.write(JSON.stringify({ event: name, body, signature: await sign(secret, body) }) + "\n");
    }
  }
}
