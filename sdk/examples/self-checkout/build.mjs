// Writes self-checkout.wasm: the collector with a JavaScript engine inside, and without any of WASI.

import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const { component } = await componentize({
  sourcePath: 'collector.js',
  witPath: '../../wit',
  worldName: 'collector',
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile('self-checkout.wasm', component);
