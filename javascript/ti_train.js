// Functions of the page for the tab's events: a task id with its progress bar, and the values of the txt2img tab.

/**
 * Runs before the handlers of Train and Resume; returns their inputs, with the task id first.
 * @param {...unknown} inputs
 */
function ti_train_start(...inputs) {
    const id = randomId();
    const place = gradioApp().getElementById("ti_train_progress");
    requestProgress(id, place, null, () => {}, () => {});
    return [id, ...inputs.slice(1)];
}

/**
 * Runs before the handler of "From txt2img"; returns its inputs: the embedding's name and that tab's values.
 * @param {string} name
 */
function ti_train_of_txt2img(name) {
    /** @param {string} id */
    function value(id) {
        const field = gradioApp().querySelector(`#${id} textarea, #${id} input`);
        return /** @type {HTMLInputElement} */ (field).value;
    }
    return [name, value("txt2img_prompt"), value("txt2img_neg_prompt"), Number(value("txt2img_seed"))];
}
